"""A line of progress while a measurement takes long, where the Trainer shows progress at all."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_SECONDS = 1.0  # shorter measurements show nothing


@contextmanager
def progress_line(trainer: Any, text: str) -> Iterator[Callable[[], None]]:
    """Show how many batches the network has been run on.

    Args:
        trainer: The Trainer; with ``enable_progress_bar=False`` nothing is shown.
        text: What is being measured.

    Yields:
        To be called after each batch.
    """
    bar = getattr(trainer, "progress_bar_callback", None)
    if bar is None or not trainer.is_global_zero or not getattr(bar, "is_enabled", True):
        yield _nothing
        return
    line = _RichLine(bar, text) if hasattr(bar, "progress") else _PlainLine(text)
    try:
        yield line.advance
    finally:
        with suppress(Exception):  # a display that fails is no measurement that does
            line.close()


def _nothing() -> None:
    """In place of a line."""


class _PlainLine:
    """Below the bar of `TQDMProgressBar`, and gone afterwards."""

    def __init__(self, text: str) -> None:
        from tqdm.auto import tqdm

        self.line = tqdm(desc=text, unit=" batches", leave=False, delay=_SECONDS)

    def advance(self) -> None:
        with suppress(Exception):
            self.line.update()

    def close(self) -> None:
        self.line.close()


class _RichLine:
    """Among the tasks of `RichProgressBar`."""

    def __init__(self, bar: Any, text: str) -> None:
        self.progress, self.text, self.started = bar.progress, text, time.perf_counter()
        self.task: Any = None

    def advance(self) -> None:
        if self.progress is None or time.perf_counter() - self.started < _SECONDS:
            return
        with suppress(Exception):
            if self.task is None:
                self.task = self.progress.add_task(self.text, total=float("inf"))
            self.progress.update(self.task, advance=1)
            self.progress.refresh()

    def close(self) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
