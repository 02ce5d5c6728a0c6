"""A line that counts the passes of a long measurement through a network."""

from contextlib import suppress

SECONDS = 1.0  # shorter measurements show nothing


class PassesLine:
    """A line of tqdm, removed when it is closed.

    Args:
        text: What is being measured.
        shown: Whether it is shown; None shows it in terminals and notebooks only.
    """

    def __init__(self, text: str, shown: bool | None = True) -> None:
        from tqdm.auto import tqdm

        hidden = None if shown is None else not shown
        self.line = tqdm(desc=text, unit=" passes", leave=False, delay=SECONDS, disable=hidden)

    def advance(self) -> None:
        """Count one pass; a display that fails does not fail the measurement."""
        with suppress(Exception):
            self.line.update()

    def close(self) -> None:
        """Remove the line."""
        self.line.close()
