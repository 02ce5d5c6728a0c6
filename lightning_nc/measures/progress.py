"""A line that counts the passes of a long measurement through a network."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from torch import distributed

SECONDS = 1.0  # shorter measurements show nothing


def bar_of_tqdm() -> Any:
    """Return tqdm's class of bars; without ipywidgets, ``tqdm.auto`` warns in every notebook."""
    if find_spec("ipywidgets") is None:
        from tqdm import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm


class Line:
    """A line that counts passes; by itself it shows nothing."""

    def advance(self) -> None:
        """Count one pass; a display that fails does not fail the measurement."""

    def close(self) -> None:
        """Remove the line."""


class PassesLine(Line):
    """A line of tqdm, removed when it is closed.

    Args:
        text: What is being measured.
        shown: Whether it is shown; None shows it in terminals and notebooks only.
    """

    def __init__(self, text: str, shown: bool | None = True) -> None:
        hidden = None if shown is None else not shown
        options = {"unit": " passes", "leave": False, "delay": SECONDS, "disable": hidden}
        self.line = bar_of_tqdm()(desc=text, **options)

    def advance(self) -> None:
        """Count one pass."""
        with suppress(Exception):
            self.line.update()

    def close(self) -> None:
        """Remove it."""
        self.line.close()


@contextmanager
def shown_line(line_of: Callable[[], Line]) -> Iterator[Callable[[], None]]:
    """Show a line while the block lasts; a display that fails does not fail the measurement.

    Args:
        line_of: Makes the line; if it fails, none is shown.

    Yields:
        A function to call after each pass.
    """
    line = Line()
    with suppress(Exception):
        line = line_of()
    try:
        yield line.advance
    finally:
        with suppress(Exception):
            line.close()


def passes_shown(shown: bool | None) -> AbstractContextManager[Callable[[], None]]:
    """Show how many passes a measurement without a Trainer has made, as `shown_line` does.

    Args:
        shown: Whether to show it; None shows it in terminals and notebooks, on the first process.
    """
    if shown is None and distributed.is_available() and distributed.is_initialized():
        shown = None if distributed.get_rank() == 0 else False
    return shown_line(lambda: PassesLine("measure", shown))
