"""Format numbers and words for people; find the first, best and last value of a series."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from lightning_nc.figures.labels import ten_to_the
from lightning_nc.measures.quantity import Quantity
from lightning_nc.measures.shown import rounded

_MINUS = "\N{MINUS SIGN}"


class At(NamedTuple):
    """A value and the time of its measurement in words, such as ``"epoch 3"``."""

    value: float
    time: str


class Summary(NamedTuple):
    """The first, best and last value of a quantity; best is None if they cannot be ranked."""

    first: At
    best: At | None
    last: At


def summary(quantity: Quantity, times: Sequence[str], values: Sequence[float]) -> Summary:
    """Return the first, best and last value of a quantity."""
    measured = [At(value, time) for value, time in zip(values, times, strict=True)]
    defined = [at for at in measured if not math.isnan(at.value)]
    best = None
    if quantity.best is not None and defined:
        best = min(defined, key=lambda at: quantity.cost(at.value))
    return Summary(measured[0], best, measured[-1])


def for_people(value: float) -> str:
    r"""Format a number with four digits, a power of ten if needed, and a true minus sign.

    Args:
        value: A number that is not NaN.

    Example:
        >>> for_people(0.99712), for_people(0.99996), for_people(1.0), for_people(math.inf)
        ('0.9971', '1.000', '1', '∞')
        >>> for_people(3.2e-05).encode("ascii", "namereplace").decode()
        '3.200\\N{MULTIPLICATION SIGN}10\\N{SUPERSCRIPT MINUS}\\N{SUPERSCRIPT FIVE}'
    """
    if math.isinf(value):
        text = "∞" if value > 0 else "-∞"
    elif value == 0 or 1e-3 <= abs(value) < 1e5:
        text = rounded(value) if abs(value) < 9999.5 else f"{value:.0f}"
    else:
        digits, power = f"{value:.3e}".split("e")
        text = ten_to_the(int(power), digits)
    return text.replace("-", _MINUS)


def typeset(text: str) -> str:
    """Return text with Greek letters, a superscript plus, and true minus signs."""
    greek = re.sub(r"\brho\b", "\N{GREEK SMALL LETTER RHO}", text)
    greek = greek.replace("Sigma", "\N{GREEK CAPITAL LETTER SIGMA}").replace("^+", "⁺")
    return re.sub(r"(?<![^\s(K])-(?=\d)", _MINUS, greek)
