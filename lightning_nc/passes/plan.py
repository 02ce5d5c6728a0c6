"""The plan of a measurement: samples, classes, head, layers, and the sums taken there."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lightning_nc.network.batches import ProbeBatch
from lightning_nc.network.points import Point
from lightning_nc.passes.statistics import GEOMETRY, ClassSums, Decisions, Statistic

# K x d arrays of float64 numbers at the peak, as measured: sums and residuals, with the copies that
# a reduction makes, means, directions, and the workspace of a singular value decomposition
_ACCUMULATORS = 12


class Wanted(NamedTuple):
    """Where the answer to one request comes from.

    Attributes:
        layers: The points of its layers, in order of depth.
        classifier: The point at the classifier's input; None if the classifier is not requested.
        statistics: The statistics summed there, besides those of `ClassGeometry`.
    """

    layers: list[Point]
    classifier: Point | None
    statistics: tuple[Statistic, ...] = ()

    @property
    def points(self) -> list[Point]:
        """The points of the layers, then that of the classifier."""
        return self.layers if self.classifier is None else [*self.layers, self.classifier]


class Plan(NamedTuple):
    """What a measurement looks at.

    Attributes:
        source_size: Size of the dataset for which the plan was made.
        source: Returns that dataset; None if it no longer exists.
        declared: Whether the dataset declares its labels.
        batches: The batches of all processes.
        num_classes: Number of classes K.
        head: Name of the head; None if none was found and none is required.
        wanted: For each request, where its answer comes from.
        statistics: The statistics summed at each point.
        groups: The points in groups that fit into the memory budget, measured one after another.
        widths: Feature dimension of each point.
        bytes_each: Bytes of one number of a feature, as it is cached.
        digest: A number that is equal on all processes if their plans are.
    """

    source_size: int
    source: Callable[[], Any]
    declared: bool
    batches: list[ProbeBatch]
    num_classes: int
    head: str | None
    wanted: list[Wanted]
    statistics: dict[Point, list[Statistic]]
    groups: list[list[Point]]
    widths: dict[Point, int]
    bytes_each: int
    digest: int


def statistics_of(wanted: Sequence[Wanted]) -> dict[Point, list[Statistic]]:
    """The statistics summed at each point, each once, however many requests need it.

    Raises:
        ValueError: If statistics of different types have the same name.
    """
    by_point: dict[Point, dict[str, Statistic]] = {}
    for each in wanted:
        for point in each.points:
            named = by_point.setdefault(point, {one.name: one for one in (ClassSums(), *GEOMETRY)})
            for one in each.statistics:
                if type(named.setdefault(one.name, one)) is not type(one):
                    raise ValueError(
                        f"Two statistics have the name '{one.name}', {type(one).__name__} and "
                        f"{type(named[one.name]).__name__}. Rename one of them."
                    )
        if each.classifier is not None:
            by_point[each.classifier][Decisions.name] = Decisions()
    return {point: list(named.values()) for point, named in by_point.items()}


def groups_within(
    memory_mb: float,
    K: int,
    widths: Mapping[Point, int],
    statistics: Mapping[Point, Sequence[Statistic]],
) -> list[list[Point]]:
    """Split points into groups whose accumulators fit into a budget together.

    Args:
        memory_mb: The budget in MB.
        K: Number of classes.
        widths: Feature dimension of each point.
        statistics: The statistics summed at each point.

    Returns:
        The groups, with the points in the order of ``widths``.

    Raises:
        ValueError: If the accumulators of a single point exceed the budget.
    """
    groups: list[list[Point]] = [[]]
    used = 0.0
    for point, width in widths.items():
        declared = sum(math.prod(each.shape(K, width)) for each in statistics[point])
        megabytes = 8 * (_ACCUMULATORS * K * width + 2 * (declared - K * width)) / 2**20
        if megabytes > memory_mb:
            raise ValueError(
                f"Layer '{point.name}' has {width} features, whose accumulators for "
                f"{K} classes take {megabytes:.3g} MB, over the {memory_mb:.3g} MB "
                "of Probe(memory_mb=...). Raise it, or pool= the layer to fewer features."
            )
        if used + megabytes > memory_mb:
            groups.append([])
            used = 0.0
        groups[-1].append(point)
        used += megabytes
    return groups


def digest_of(plan: Plan) -> int:
    """A number that is the same on all processes if they settled on the same plan."""
    layers = [(p.name, p.module, p.run, p.side, width) for p, width in plan.widths.items()]
    batches = [(indices, None if of is None else of.tolist()) for _, indices, of in plan.batches]
    settled = (plan.source_size, batches, plan.num_classes, plan.head, layers)
    return int.from_bytes(hashlib.sha256(repr(settled).encode()).digest()[:7], "big")
