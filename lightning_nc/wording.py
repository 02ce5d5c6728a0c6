"""How messages name values and things, in a few words."""

import re
from collections.abc import Iterable, Sequence
from typing import Any


def shown(value: Any) -> str:
    """Return a value as a message shows it, in 80 characters or fewer."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def listed(names: Iterable[object], most: int = 5) -> str:
    """Return the first few names, and how many there are besides.

    Example:
        >>> listed(["fc", "conv", "norm", "head"], most=2), listed([0, 1])
        ('fc, conv and 2 more', '0, 1')
    """
    texts = [*map(str, names)]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def first_and_last(names: Sequence[str], most: int = 8) -> str:
    """Return names, of which those in the middle of a long list are only counted.

    Example:
        >>> first_and_last(["0", "2", "4", "6", "8"], most=4)
        '0, 2, 2 more, 8'
    """
    if len(names) > most:
        names = [*names[: most - 2], f"{len(names) - most + 1} more", names[-1]]
    return ", ".join(names)


def digits(number: float) -> str:
    """Return a number, if it is whole with all its digits, as counts and steps are written.

    Example:
        >>> digits(1234567.0), digits(2 / 3)
        ('1234567', '0.666667')
    """
    return f"{number:.0f}" if float(number).is_integer() else f"{number:g}"


def first_sentence(text: str) -> str:
    """Return what a message says first, without its advice.

    Example:
        >>> first_sentence("Data 1.5 of net.0 differ. Give others.")
        'Data 1.5 of net.0 differ'
    """
    return re.split(r"[.!?]\s+(?=[A-Z])|\n", text, maxsplit=1)[0].rstrip(".")
