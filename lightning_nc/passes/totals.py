"""What is found at a layer, from the sums over all processes."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.network.head import Head
from lightning_nc.network.points import Point
from lightning_nc.passes.decisions import classifier_of
from lightning_nc.passes.geometry_statistics import (
    GEOMETRY,
    ClassSums,
    DecisionCounts,
    ResidualSquares,
    ResidualSums,
)
from lightning_nc.passes.layer_batches import Centres, centres_of
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.request import ClassifierGeometry
from lightning_nc.passes.statistics import Statistic, why_failed


def sums_of(place: Hashable, totals: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
    """The sums of one place, by name."""
    return {name: total for (at, name), total in totals.items() if at == place}


def centres_at(
    plan: Plan, points: Sequence[Point], totals: Mapping[Hashable, Tensor]
) -> dict[Point, Centres]:
    """What is known of points after the first sweep; the sums of classes become their means."""
    counts, found = plan.counts, dict[Point, Centres]()
    for point in points:
        sums = sums_of(point, totals)
        of_classes = sums.pop(ClassSums.name)
        first = partial(combined, plan.statistics[point], sums, {})
        found[point] = centres_of(counts.to(of_classes.device), of_classes, first)
    return found


def combined(
    statistics: Sequence[Statistic], totals: Mapping[str, Tensor], broken: dict[str, Exception]
) -> dict[str, Tensor]:
    """The sums of a layer, of which each process has kept those apart that do not add up.

    Args:
        statistics: The statistics of the layer.
        totals: Its sums by name.
        broken: Gets why statistics cannot be combined, by name; these are left out.
    """
    sums = dict(totals)
    for each in statistics:
        if each.name in totals and not each.adds_up:
            try:
                sums[each.name] = each.combine(totals[each.name])
            except Exception as error:
                broken[each.name] = why_failed(each, "combined", error)
                del sums[each.name]
    return sums


def declared_of(totals: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sums of a layer that requests declare, besides those of the geometry."""
    geometry = {ResidualSums.name, *(each.name for each in GEOMETRY)}
    # on their own: a view of the sums would keep those of the residuals, as large as the means
    return {name: total.clone() for name, total in totals.items() if name not in geometry}


def geometry_of(
    centres: Centres, totals: Mapping[str, Tensor], declared: Mapping[str, Tensor]
) -> ClassGeometry:
    """The geometry of a layer from the sums over all processes.

    Args:
        centres: Class means and directions.
        totals: All sums of the layer.
        declared: Those that requests declare.
    """
    fuzziness, collapse, squares = totals[ResidualSquares.name].clone()
    return ClassGeometry(
        centres.counts,
        centres.means,
        centres.directions.rank,
        fuzziness,
        collapse,
        squares,
        declared,
        centres.scale,
    )


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
        weight[classes].double(),
        None if bias is None else bias[classes],
        mismatches.sum() / geometry.counts.sum(),
        correct / geometry.counts,
        head.is_affine,
    )


def _decisive(geometry: ClassGeometry, decisions: DecisionCounts, is_affine: bool) -> Tensor:
    """By class, the samples that are not assigned to the nearest class mean, and those right.

    Of the three ways to decide, all samples together tell which is that of the network. Both are
    NaN if an output is: NaN decides nothing.
    """
    counts = geometry.statistics[decisions.name]
    off, no_probability, nan = counts[6:].any(1).tolist()
    if nan:
        return torch.full_like(counts[:2], torch.nan)
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
