"""The words of labels: short names of layers, and numbers without mathematics."""

from collections.abc import Sequence

LETTERS = 18  # longest name below an axis
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def ten_to_the(power: int, factor: str = "") -> str:
    """A power of ten without mathematics, such as 10⁻³, or a multiple of it."""
    times = f"{factor}\N{MULTIPLICATION SIGN}" if factor else ""
    return f"{times}10{str(power).translate(_SUPERSCRIPTS)}"


def labels_of_logarithmic_ticks(values: Sequence[float]) -> list[str]:
    """Label the ticks of a logarithmic axis in one style.

    Args:
        values: The places of all ticks, positive.

    Returns:
        Powers of ten if all are such; else plain numbers, or if these are too small or large,
        multiples of powers of ten.
    """
    pairs = [f"{value:.6e}".split("e") for value in values]
    if all(float(factor) == 1 for factor, _ in pairs):
        return [ten_to_the(int(power)) for _, power in pairs]
    if all(1e-3 <= value <= 1e4 for value in values):
        return [f"{value:.6g}" for value in values]
    return [ten_to_the(int(power), f"{float(factor):.6g}") for factor, power in pairs]


def shortened(names: Sequence[str]) -> list[str]:
    """Shorten module names by the parts that long ones share, and keep them distinct.

    Args:
        names: Layers in order of depth; names of up to 18 letters are left as they are, unless they
            have the same parts in common as the longer ones. Of shared parts, as many are kept as
            each name needs to have a word beside its numbers.

    Returns:
        A name for each layer, with an ellipsis for what is left out.
    """
    parts = [name.split(".") for name in names if len(name) > LETTERS]
    start, end = _in_common(parts), _in_common([part[::-1] for part in parts])
    first = parts[0] if parts else []
    worded = (s for s in range(start, -1, -1) if all(map(_has_word, _kept(parts, s, end))))
    start = next(worded, start)
    short = []
    for name in names:
        own = name.split(".")
        (kept,) = _kept([own], start, end)
        shown = ("…" if start else "") + ".".join(kept) + ("…" if end else "")
        ends_alike = own[len(own) - end :] == first[len(first) - end :]
        alike = len(own) > start + end and own[:start] == first[:start] and ends_alike
        short.append(shown if len(name) > LETTERS or alike else name)
    ends = [s if len(s) <= LETTERS else "…" + s[-LETTERS + 1 :] for s in short]
    return ends if len(set(ends)) == len(set(names)) else short


def _in_common(parts: Sequence[Sequence[str]]) -> int:
    """The number of leading parts that all names share, not counting their last."""
    if len(parts) < 2:
        return 0
    most = min(map(len, parts)) - 1
    return next((i for i in range(most) if len({part[i] for part in parts}) > 1), most)


def _kept(parts: Sequence[Sequence[str]], start: int, end: int) -> list[Sequence[str]]:
    """The parts of each name without so many at its start and end, but at least one."""
    return [own[start : len(own) - min(end, len(own) - start - 1)] for own in parts]


def _has_word(parts: Sequence[str]) -> bool:
    return any(letter.isalpha() for part in parts for letter in part)
