"""What is said of layers that are no sequence, or that return more than is measured."""

from collections.abc import Sequence

from torch import nn

from lightning_nc.guards.shards import split_parameters
from lightning_nc.network.blocks import first_apart, returns_more
from lightning_nc.network.points import Point
from lightning_nc.network.trace import Trace
from lightning_nc.wording import listed


def several_note(found: Trace, points: Sequence[Point]) -> dict[str, str]:
    """Say that features are of the first of several tensors that count, or nothing."""
    names = dict.fromkeys(point.module for point in points if point.module is not None)
    several = next((name for name in names if returns_more(found, name)), None)
    if several is None:
        return {}
    return {
        "several": f"the output depends on several tensors that '{several}' returns, and only the "
        "first is measured. To take others, name layers with functions: "
        f"layers={{'{several}': lambda output: ...}}."
    }


def apart_note(found: Trace, points: Sequence[Point]) -> dict[str, str]:
    """Say that a layer does not follow from the one before, as in another branch, or nothing."""
    names = {(point.module, point.run): point.name for point in points}
    apart = first_apart([run for run in found.runs if run.key in names], found)
    if apart is None:
        return {}
    before, after = apart
    if after.number == 0:
        way = "Measure each branch by a callback of its own: layers=[...], Probe(..., name=...)."
    else:
        way = 'Call the part that runs several times once, such as Probe(forward="encoder").'
    return {
        "apart": f"'{names[after.key]}' is not computed from the layer before it, "
        f"'{names[before.key]}', so the layers are not one sequence, and what compares them (rho, "
        f"r, figures against depth) means nothing. {way}"
    }


def split_note(model: nn.Module) -> dict[str, str]:
    """Say that each process may see only a part of the features, or nothing."""
    names = split_parameters(model)
    if not names:
        return {}
    return {
        "split": f"the network is in tensor parallelism ({listed(names, 3)}), so values of layers "
        "of which this process has only a part are of that part. Name layers whose outputs are "
        "whole, layers=[...], or measure a checkpoint in one process."
    }
