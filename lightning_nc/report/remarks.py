"""What could not be read, in sentences for the page."""

_LETTERS = 200  # longest piece of foreign text in a sentence


def printable(text: str) -> str:
    r"""Return text from a file or a folder's name as one line that can be written in UTF-8.

    Line breaks, control characters and bytes that are no UTF-8 become escapes.

    Example:
        >>> print(printable("a\nb\udcff"))
        a\nb\udcff
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def clipped(text: str, letters: int = _LETTERS) -> str:
    """Return text with its middle left out where it has more letters than these."""
    half = (letters - 1) // 2
    return text if len(text) <= letters else f"{text[:half]}…{text[-half:]}"


class Remarks:
    """Remarks on one file or folder: each kind once, with its first place and how often.

    Args:
        source: Name of the file or folder.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[str, tuple[str, int]] = {}

    def add(self, what: str, where: str = "") -> None:
        """Add a remark.

        Args:
            what: What is wrong, and what that costs; equal ones are counted.
            where: Where it is, of which the first is told.
        """
        first, count = self._found.get(what, (where, 0))
        self._found[what] = first, count + 1

    def sentences(self) -> list[str]:
        """One sentence for each kind."""
        return [
            printable(
                f"{self._source}: "
                + (f"{clipped(where)}: " if where else "")
                + what
                + (f" ({count} such)" if count > 1 else "")
            )
            for what, (where, count) in self._found.items()
        ]
