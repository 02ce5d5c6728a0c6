"""Notes on values that are undefined, mislead or do not compare, or use fewer directions."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.input_checks import missing_directions
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.timeline import Timeline
from lightning_nc.network.points import contained
from lightning_nc.wording import digits, listed


def rank_note(layers: Mapping[str, ClassGeometry]) -> dict[str, str]:
    """A note if the class means of some layers span fewer directions than they could."""
    missing = {name: missing_directions(g.rank, g.means) for name, g in layers.items()}
    short = [f"'{name}' ({directions})" for name, directions in missing.items() if directions]
    if not short:
        return {}
    return {
        "rank": f"class means span fewer directions than they could at {listed(short)}; D and NC1 "
        "use only those, and are undefined (NaN) if there are none."
    }


def single_samples_note(n: Tensor, names: str) -> dict[str, str]:
    """A note if half of the classes or more have one sample, which lies at their mean.

    Args:
        n: Samples per class, shape ``(K,)``.
        names: The quantities of variation within classes.
    """
    K, single = int((n > 0).sum()), int((n == 1).sum())
    if 2 * single < K:  # a long tail has some
        return {}
    result = "are 0" if single == K else "are too small"
    return {
        "single samples": f"{single} of {K} classes have one sample, which is their mean, so their "
        f"variation is 0 and {names} {result} whatever the network has learned. Measure more "
        "samples per class."
    }


def nesting_note(layers: Iterable[str], symbol: str = "D") -> dict[str, str]:
    """A note if some layers are parts of others, so that the list is no sequence of layers.

    Args:
        layers: Names of the layers.
        symbol: What is measured along them.
    """
    inside = [f"'{inner}' is in '{outer}'" for inner, outer in contained(layers).items()]
    if not inside:
        return {}
    return {
        "nesting": f"some layers contain others ({listed(inside, 3)}), so {symbol} is not that of "
        "one layer after another, and rho and r do not test the law. Name layers that do not "
        'contain each other; in a glob "*" stops at a dot.'
    }


def law_note(layers: Mapping[str, float], symbol: str = "D") -> dict[str, str]:
    """Why the line through the logarithms of a value of each layer, or its r, is undefined.

    Args:
        layers: The value of each layer, in order of depth, for which r is undefined.
        symbol: The symbol of the value.
    """
    broken = [name for name, value in layers.items() if not 0 < value < math.inf]
    if broken:
        places = listed(map(repr, broken))
        return {
            "law": f"the law is undefined (NaN), since {symbol} is zero or not finite at {places}."
        }
    if len(layers) < 2:
        return {"law": "the law is undefined (NaN), since a line needs two layers or more."}
    alike = f"{symbol} is the same at all {len(layers)} layers, but for rounding"
    cause = "a line fits any two points" if len(layers) == 2 else alike
    return {"law": f"r is undefined (NaN), since {cause}."}


OUTPUTS_NAN = "the network outputs NaN: it has diverged, or overflows in its precision"
ROWS_NOT_FINITE = "the weight of the classifier is not finite (NaN or infinite)"


def are(names: Sequence[str], what: str) -> str:
    """A sentence on some quantities.

    Example:
        >>> are(["gnc2"], "undefined (NaN)"), are(["nc3", "unc3"], "not logged")
        ('gnc2 is undefined (NaN)', 'nc3, unc3 are not logged')
    """
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {what}"


def undefined_notes(
    values: Mapping[str, float], causes: Iterable[tuple[str, Callable[[str], bool]]]
) -> dict[str, str]:
    """Why some values are NaN or infinite: a note for each cause, by the cause.

    Args:
        values: Values by name of the quantity.
        causes: Causes that there are, and whether one explains a quantity, the most special first.
    """
    notes, left = {}, [name for name, value in values.items() if not math.isfinite(value)]
    for why, explains in causes:
        explained = [name for name in left if explains(name)]
        left = [name for name in left if name not in explained]
        if explained:
            infinite = any(math.isinf(values[name]) for name in explained)
            what = f"undefined (NaN{' or infinite' if infinite else ''})"
            notes[f"undefined: {why}"] = f"{are(explained, what)}: {why}."
    return notes


def change_note(timeline: Timeline) -> dict[str, str]:
    """A note if the last measurement is of other samples or layers than the one before."""
    if len(timeline.measurements) < 2:
        return {}
    before, now = timeline.measurements[-2], timeline.last
    changes = [
        f"{name} was {before.probe[name]} and is {value}"
        for name, value in now.probe.items()
        if before.probe.get(name, value) != value
    ]
    if not torch.equal(before.counts, now.counts):
        changes.append(f"class counts were {_in_words(before)} and are {_in_words(now)}")
    layers, of_before = timeline.layers, timeline._replace(measurements=[before]).layers
    if layers != of_before:
        changes.append(f"the layers were {listed(of_before)} and are {listed(layers)}")
    if not changes:
        return {}
    return {
        "changed": f"what is measured has changed after {now.when}: {'; '.join(changes)}. Do not "
        "compare values across this change."
    }


def _in_words(measurement: Measurement) -> str:
    n = measurement.counts.tolist()
    return f"{digits(n[0])} for {len(n)} classes" if len({*n}) == 1 else listed(map(digits, n))
