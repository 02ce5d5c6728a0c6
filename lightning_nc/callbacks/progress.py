"""A progress line for long measurements, if the Trainer shows progress at all."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from lightning_nc.measures.progress import SECONDS, Line, PassesLine, shown_line

_OURS = "lightning_nc"  # marks our task among those of a `RichProgressBar`


def progress_line(trainer: Any, text: str) -> AbstractContextManager[Callable[[], None]]:
    """Show how many forward or backward passes have been made, as `shown_line` does.

    The line is shown on the first process only, and must not raise there: the others would wait.

    Args:
        trainer: The Trainer; with ``enable_progress_bar=False`` nothing is shown.
        text: What is being measured.
    """
    return shown_line(lambda: _line_of(trainer, text))


def _line_of(trainer: Any, text: str) -> Line:
    """Return a line that suits the Trainer's progress bar, which may be user code."""
    bar = getattr(trainer, "progress_bar_callback", None)
    if bar is None or not trainer.is_global_zero or not getattr(bar, "is_enabled", True):
        return Line()
    tasks = getattr(bar, "progress", None)  # RichProgressBar has it once training has started
    if tasks is not None and tasks.live.is_started:
        return _RichLine(tasks, text)
    return PassesLine(text)  # below the bar of `TQDMProgressBar`


class _RichLine(Line):
    """A task of `RichProgressBar`, hidden when it is closed.

    It is not removed but used again: Lightning finds its own tasks by their places among all.
    """

    def __init__(self, progress: Any, text: str) -> None:
        self.progress, self.text, self.started = progress, text, time.perf_counter()
        self.task: Any = None

    def advance(self) -> None:
        if time.perf_counter() - self.started < SECONDS:
            return
        with suppress(Exception):
            if self.task is None:
                self.task = self._shown()
            self.progress.update(self.task, advance=1)
            self.progress.refresh()

    def _shown(self) -> Any:
        for task in self.progress.tasks:
            if _OURS in task.fields:
                self.progress.reset(task.id, description=self.text, visible=True)
                return task.id
        return self.progress.add_task(self.text, total=float("inf"), **{_OURS: True})

    def close(self) -> None:
        if self.task is not None:
            self.progress.update(self.task, visible=False)
