"""A line that counts the passes of a long measurement through a network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


class PassesLine:
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
        """Count one pass; a display that fails does not fail the measurement."""
        with suppress(Exception):
            self.line.update()

    def close(self) -> None:
        """Remove the line."""
        self.line.close()


@contextmanager
def passes_shown(shown: bool | None) -> Iterator[Callable[[], None]]:
    """Show how many passes a measurement without a Trainer has made.

    Args:
        shown: Whether to show it; None shows it in terminals and notebooks, on the first process.

    Yields:
        A function to call after each pass; nothing that is shown fails the measurement.
    """
    if shown is None and distributed.is_available() and distributed.is_initialized():
        shown = None if distributed.get_rank() == 0 else False
    line: PassesLine | None = None
    with suppress(Exception):
        line = PassesLine("measure", shown)
    try:
        yield _nothing if line is None else line.advance
    finally:
        with suppress(Exception):
            if line is not None:
                line.close()


def _nothing() -> None:
    """Show nothing."""
