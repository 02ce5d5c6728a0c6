"""The plan of a measurement: samples, classes, head, layers, and the sums taken there."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.network.batches import ProbeBatch
from lightning_nc.network.points import Point
from lightning_nc.passes.geometry_statistics import (
    GEOMETRY,
    ClassSums,
    DecisionCounts,
    ResidualSums,
)
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Request
from lightning_nc.passes.statistics import Statistic, require_same

# K x d arrays of float64 numbers at the peak: the means, in the place of the sums, and two more
# while the directions are found; later the directions and, if features are read again, residuals
_ACCUMULATORS = 3


class Wanted(NamedTuple):
    """Where the answer to one request comes from.

    Attributes:
        layers: The points of its layers, in order of depth.
        classifier: The point at the classifier's input; None if the classifier is not requested.
        head: Name of the head whose input that is; None if the network has none.
        is_named: Whether the head was named, rather than found.
        statistics: The statistics summed there, besides those of `ClassGeometry`.
        mismatches: Whether the head's decisions are compared with class means at each layer.
        geometry: Whether the geometry of the layers is needed, too.
        notes: Sentences on what was left out, by topic.
        pooling: How points are pooled, in words by name, where it was chosen and is no flattening.
    """

    layers: list[Point]
    classifier: Point | None
    head: str | None = None
    is_named: bool = False
    statistics: tuple[Statistic, ...] = ()
    mismatches: bool = False
    geometry: bool = True
    notes: Mapping[str, str] = MappingProxyType({})
    pooling: Mapping[str, str] = MappingProxyType({})

    def geometry_at(self, point: Point) -> bool:
        """Whether the geometry is needed at one of its points."""
        return self.geometry or point == self.classifier

    def statistics_at(self, point: Point) -> list[Statistic]:
        """All statistics that the request needs at one of its points."""
        if not self.geometry_at(point):
            return [*self.statistics]
        decided = self.decisions if point == self.classifier or self.mismatches else None
        return [*GEOMETRY, *self.statistics, *([decided] if decided else [])]

    @property
    def decisions(self) -> DecisionCounts | None:
        """What compares the head's decisions with the nearest class mean; None without a head."""
        has_head = self.head is not None  # of a network that is its head, the name is empty
        return DecisionCounts(self.classifier) if self.classifier and has_head else None

    @property
    def points(self) -> list[Point]:
        """The points of the layers, then that of the classifier."""
        return self.layers if self.classifier is None else [*self.layers, self.classifier]


def points_of(wanted: Iterable[Wanted | None]) -> list[Point]:
    """The points of requests that can be answered, each once.

    Those of classifiers come first: layers of any group are compared with their decisions.
    """
    met = [each for each in wanted if each is not None]
    classifiers = [each.classifier for each in met if each.classifier is not None]
    return [*dict.fromkeys([*classifiers, *(point for each in met for point in each.points)])]


class Plan(NamedTuple):
    """What a measurement looks at.

    Attributes:
        source_size: Size of the dataset for which the plan was made.
        source: Returns that dataset; None if it no longer exists.
        declared: Whether the dataset declares its labels.
        structure: That of the network, see `structure_of`.
        of_positions: Whether labels are of positions of sequences or images.
        batches: The batches of all processes.
        classes: The labels of the K classes that are measured, ascending, shape ``(K,)``.
        class_names: Their names, as in `names_of_classes`.
        num_labels: Number of labels from 0: rows of heads, or the largest label + 1.
        num_logits: Columns of the output, where several tensors are returned; see `answer_of`.
        wanted: For each request, where its answer comes from; None if it cannot be answered.
        failures: Why requests cannot be answered, by number, as far as planning found it.
        notes: Sentences on the probe, by topic: they are not of one request.
        statistics: The statistics summed at each point.
        megabytes: Memory that the accumulators of each point take at the peak, in MB.
        widths: Feature dimension of each point.
        bytes_each: Bytes of one number of a feature, as it is cached.
        digest: A number that is equal on all processes if their plans are.
    """

    source_size: int
    source: Callable[[], Any]
    declared: bool
    structure: int
    of_positions: bool
    batches: list[ProbeBatch]
    classes: Tensor
    class_names: tuple[str, ...]
    num_labels: int
    num_logits: int
    wanted: list[Wanted | None]
    failures: dict[int, Exception]
    notes: dict[str, str]
    statistics: dict[Point, list[Statistic]]
    megabytes: dict[Point, float]
    widths: dict[Point, int]
    bytes_each: int
    digest: int

    def in_groups(self, memory_mb: float) -> list[list[Point]]:
        """The points in groups, measured one after another, that fit into a budget in MB.

        Points are in order. What takes more by itself is a group of its own.
        """
        groups: list[list[Point]] = [[]]
        used = 0.0
        for point, needed in self.megabytes.items():
            if used + needed > memory_mb and groups[-1]:
                groups.append([])
                used = 0.0
            groups[-1].append(point)
            used += needed
        return groups

    def megabytes_to_keep(self, points: Iterable[Point], processes: int = 1) -> float:
        """Memory in MB that the features of some points take on the process that has most."""
        size = -(-len(self.batches) // processes) * max(batch.size for batch in self.batches)
        return sum(self.widths[point] for point in points) * size * self.bytes_each / 2**20

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def counts(self) -> Tensor:
        """Samples per class, n_k, float64, shape ``(K,)``."""
        labels = torch.cat([each.labels for each in self.batches if each.labels is not None])
        found = torch.searchsorted(self.classes, labels)
        return found.bincount(minlength=self.num_classes).double()

    @property
    def met(self) -> list[Wanted]:
        """Where the answers come from, of the requests that can have one."""
        return [each for each in self.wanted if each is not None]

    @property
    def last_layers(self) -> dict[Point, str | None]:
        """The points of last-layer features, with the name of the head whose input they are."""
        return {each.classifier: each.head for each in self.met if each.classifier is not None}

    @property
    def heads(self) -> dict[Point, str]:
        """Names of the heads by the point at their input."""
        return {point: head for point, head in self.last_layers.items() if head is not None}

    @property
    def named_heads(self) -> set[str]:
        """Names of the heads that were named, rather than found."""
        return {each.head for each in self.met if each.head is not None and each.is_named}

    def failed(self, failures: Mapping[Any, Exception]) -> dict[int, Exception]:
        """The requests that cannot be answered because of failures.

        Args:
            failures: What went wrong, by point, by name of the head, or by point and name of the
                statistic.
        """
        found: dict[int, Exception] = {}
        for number, each in enumerate(self.wanted):
            if each is None:
                continue
            sums = [(p, one.name) for p in each.points for one in each.statistics_at(p)]
            sums += [(p, ResidualSums.name) for p in each.points if each.geometry_at(p)]
            places = (*each.points, each.head, *sums)
            causes = [failures[place] for place in places if place in failures]
            if causes:
                found[number] = causes[0]
        return found

    def needed(self, points: Iterable[Point], failed: Collection[int]) -> list[Point]:
        """Those of some points that requests need which have not failed."""
        alive = self._alive(failed)
        return [point for point in points if any(point in each.points for each in alive)]

    def with_geometry(self, points: Iterable[Point], failed: Collection[int]) -> list[Point]:
        """Those of some points whose geometry is needed by requests that have not failed."""
        of_each = [[p for p in w.points if w.geometry_at(p)] for w in self._alive(failed)]
        return [point for point in points if any(point in each for each in of_each)]

    def _alive(self, failed: Collection[int]) -> list[Wanted]:
        return [w for n, w in enumerate(self.wanted) if w is not None and n not in failed]


def add_statistics(by_point: dict[Point, list[Statistic]], each: Wanted) -> None:
    """Add the statistics of a request to those summed at each point, each once.

    Raises:
        ValueError: If statistics that differ have the same name; nothing is added.
    """
    found = {}
    for point in each.points:
        named = {one.name: one for one in by_point.get(point, ())}
        for one in each.statistics_at(point):
            require_same(one, named.setdefault(one.name, one))
        found[point] = [*named.values()]
    by_point |= found


def megabytes_of(K: int, width: int, statistics: Sequence[Statistic], processes: int = 1) -> float:
    """Memory that a point's accumulators take at the peak, in MB.

    Args:
        K: Number of classes.
        width: Feature dimension of the point.
        statistics: The statistics summed there.
        processes: Number of processes that share them.
    """
    numbers = {each.name: math.prod(each.shape_over(processes, K, width)) for each in statistics}
    means = numbers.pop(ClassSums.name, 0)
    return 8 * (_ACCUMULATORS * means + 2 * sum(numbers.values())) / 2**20


def digest_of(plan: Plan, probe: Probe, requests: Sequence[Request]) -> int:
    """A number that is the same on all processes if they settled on the same plan.

    Whatever decides the size of a reduction is part of it, besides what decides the values.
    """
    layers = [(p.name, *p.place, width) for p, width in plan.widths.items()]
    batches = [
        (each.indices, [None if t is None else t.tolist() for t in (each.labels, each.ranks)])
        for each in plan.batches
    ]
    heads = sorted(set(plan.heads.values()))
    groups = plan.in_groups(probe.memory_mb)
    sums = [[[each.name for each in plan.statistics[p]] for p in group] for group in groups]
    met = [one for one, where in zip(requests, plan.wanted, strict=True) if where is not None]
    kernels = [[None if callable(v) else v for v in each.kernel or ()] for each in met]
    tallies = [each.tally is None for each in met]
    asked = (probe.settings, probe.cache_mb, kernels, tallies, plan.num_labels)
    settled = (plan.source_size, batches, plan.classes.tolist(), heads, layers, sums, asked)
    return int.from_bytes(hashlib.sha256(repr(settled).encode()).digest()[:7], "big")
