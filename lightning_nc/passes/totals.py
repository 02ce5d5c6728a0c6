"""What is found at a layer, from the sums over all processes."""

from collections.abc import Mapping

from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.network.head import Head
from lightning_nc.network.points import Point
from lightning_nc.passes.decisions import classifier_of
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.request import ClassifierGeometry
from lightning_nc.passes.statistics import (
    GEOMETRY,
    Centres,
    ClassSums,
    DecisionCounts,
    ResidualSums,
)
from lightning_nc.passes.sum_checks import require_unchanged


def geometry_of(point: Point, centres: Centres, totals: dict[str, Tensor]) -> ClassGeometry:
    """The geometry of a layer from the sums over all processes."""
    counts, means, directions, scale = centres
    own = {each.name: totals[each.name] for each in GEOMETRY}
    made_use_of = {*own, ClassSums.name, ResidualSums.name}
    others = {name: total for name, total in totals.items() if name not in made_use_of}
    geometry = ClassGeometry(counts, means, directions.rank, **own, statistics=others, scale=scale)
    if ResidualSums.name in totals:
        require_unchanged(point, geometry, totals[ResidualSums.name])
    return geometry


def classifier_at(
    point: Point, plan: Plan, heads: Mapping[str, Head], geometry: ClassGeometry
) -> ClassifierGeometry:
    """The classifier at a point, with the geometry of its input.

    Args:
        point: The point at the classifier's input.
        plan: What is measured.
        heads: The heads as they were when they ran, by name.
        geometry: The geometry at the point.
    """
    name = plan.heads.get(point)
    if name is None:
        return ClassifierGeometry(geometry)
    head = heads[name]
    weight, bias = classifier_of(head, point, geometry.means.shape[1])
    classes = plan.classes.to(weight.device)
    mismatches, correct = _decisive(geometry, DecisionCounts(point), head.is_affine)
    return ClassifierGeometry(
        geometry,
        weight[classes],
        None if bias is None else bias[classes],
        mismatches.sum() / geometry.counts.sum(),
        correct / geometry.counts,
        head.is_affine,
    )


def _decisive(geometry: ClassGeometry, decisions: DecisionCounts, is_affine: bool) -> Tensor:
    """By class, the samples that are not assigned to the nearest class mean, and those right.

    Of the three ways to decide, all samples together tell which is that of the network.
    """
    counts = geometry.statistics[decisions.name]
    off, no_probability = counts[6:].any(1).tolist()
    by = 0 if is_affine and not off else 1 if no_probability else 2
    return counts[2 * by : 2 * by + 2]


def mismatches_of(
    layers: Mapping[str, ClassGeometry], decisions: DecisionCounts, last: ClassifierGeometry
) -> dict[str, Tensor]:
    """The share of samples that a classifier does not assign to the nearest mean, by layer."""
    return {
        name: _decisive(geometry, decisions, last.is_affine)[0].sum() / geometry.counts.sum()
        for name, geometry in layers.items()
    }
