"""What a measurement looks at: samples, classes, head, layers, and what is added up there."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lightning_nc.network.batches import ProbeBatch
from lightning_nc.network.points import Point
from lightning_nc.passes.statistics import GEOMETRY, ClassSums, Decisions, Statistic

# of K x d float64 numbers each at the peak, by measurement: sums and residuals with the copies that
# a reduction takes, means, directions, and what a singular value decomposition works with
_ACCUMULATORS = 12


class Wanted(NamedTuple):
    """Where the answer to one request comes from.

    Attributes:
        layers: The points of its layers, in depth.
        classifier: The point at the classifier's input; None if it is not asked for.
        statistics: What is added up there, besides what `ClassGeometry` is made of.
    """

    layers: list[Point]
    classifier: Point | None
    statistics: tuple[Statistic, ...] = ()

    @property
    def points(self) -> list[Point]:
        """All of them."""
        return self.layers if self.classifier is None else [*self.layers, self.classifier]


class Plan(NamedTuple):
    """What a measurement looks at.

    Attributes:
        source_size: Size of the dataset for which it was made.
        source: Gives that dataset, while it exists.
        declared: Whether the dataset declares its labels.
        batches: All batches, of all processes.
        num_classes: Number of classes K.
        head: Name of the classifier; None if none was found and none is needed.
        wanted: For each request, where its answer comes from.
        statistics: What is added up at each point.
        groups: The points in groups that fit into the memory budget, one after another.
        widths: Feature dimension of each point.
        bytes_each: Bytes of a feature as it is cached.
        digest: Equal on all processes if all of this is.
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
    """What is added up at each point, each statistic once, whoever wants it.

    Raises:
        ValueError: If two statistics have one name.
    """
    by_point: dict[Point, dict[str, Statistic]] = {}
    for each in wanted:
        for point in each.points:
            named = by_point.setdefault(point, {one.name: one for one in (ClassSums(), *GEOMETRY)})
            for one in each.statistics:
                if type(named.setdefault(one.name, one)) is not type(one):
                    raise ValueError(
                        f"Two statistics have the name '{one.name}', {type(one).__name__} and "
                        f"{type(named[one.name]).__name__}: give one of them another."
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
        memory_mb: The budget.
        K: Number of classes.
        widths: Feature dimension of each point.
        statistics: What is added up there.

    Raises:
        ValueError: If what is added up at one point does not fit.
    """
    groups: list[list[Point]] = [[]]
    used = 0.0
    for point, width in widths.items():
        declared = sum(math.prod(each.shape(K, width)) for each in statistics[point])
        megabytes = 8 * (_ACCUMULATORS * K * width + 2 * (declared - K * width)) / 2**20
        if megabytes > memory_mb:
            raise ValueError(
                f"Layer '{point.name}' has {width} features, for which accumulators of "
                f"{K} classes take {megabytes:.3g} MB, over the {memory_mb:.3g} MB "
                "of Probe(memory_mb=...): raise it, or pool= the layer to fewer features."
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
