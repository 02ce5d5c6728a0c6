"""A pass of two sweeps over the probe, each followed by one vote and one reduction."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.network.batches import Samples
from lightning_nc.network.capture import Head
from lightning_nc.network.points import Point
from lightning_nc.passes.measuring_pass import MeasuringPass
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.request import Answer, ClassifierGeometry
from lightning_nc.passes.statistics import (
    GEOMETRY,
    Centres,
    ClassSums,
    Decisions,
    LayerBatch,
    ResidualBatch,
    ResidualSums,
    Statistic,
    centres_of,
)
from lightning_nc.passes.sum_checks import classifier_of, require_finite, require_unchanged
from lightning_nc.passes.sums import Sums
from lightning_nc.passes.sweeps import FeatureCache, Reading, TakeBatch, sweep

_COUNTS = "counts"  # key of the samples per class; all other keys are (place, name)
_TALLY = "tally"  # place of the tallies of requests


class _FirstSweep(NamedTuple):
    """What a process knows after its first sweep.

    Attributes:
        plan: What is measured.
        points: The points of this group.
        samples: The source.
        reading: What was read, and how.
        cache: The features; None if there are too many of them to keep.
        head: The head as it was when it ran; None if there is none.
        sums: The sums of this process.
    """

    plan: Plan
    points: list[Point]
    samples: Samples
    reading: Reading
    cache: FeatureCache | None
    head: Head | None
    sums: Sums

    @property
    def classifiers(self) -> set[Point]:
        """The points of this group that are the input of a requested classifier."""
        return {each.classifier for each in self.plan.wanted if each.classifier in self.points}


class GeometryPass(MeasuringPass):
    """Measures the class geometry of layers, for several requests on one probe."""

    def _answers(self) -> list[Answer | Exception]:
        """Measure in two sweeps.

        Layers that do not fit into the memory budget together are measured in groups, one after
        another, with two sweeps each. Usually there is one group.
        """
        layers: dict[Point, ClassGeometry] = {}
        classifiers: dict[Point, ClassifierGeometry] = {}
        tallies: dict[Hashable, Tensor] = {}
        group, groups = 0, 1
        while group < groups:
            first = self.processes.agree(partial(self._first_sweep, group), self._digest)
            totals = first.sums.over_processes(self.all_reduce)
            counts = totals[_COUNTS]
            work = partial(self._second_sweep, first, totals)
            centres, sums = self.processes.agree(work, self._digest)
            totals |= sums.over_processes(self.all_reduce)
            tallies |= _of(_TALLY, totals)
            for point in first.points:
                layers[point] = _geometry(point, centres[point], _of(point, totals))
                if point in first.classifiers and first.head is not None:
                    classifiers[point] = _classifier(point, first.head, layers[point])
            group, groups = group + 1, len(first.plan.groups)
        return [
            Answer(
                {point.name: layers[point] for point in wanted.layers},
                None if wanted.classifier is None else classifiers[wanted.classifier],
                counts,
                tallies.get(number),
            )
            for number, wanted in enumerate(first.plan.wanted)
        ]

    def _first_sweep(self, group: int) -> _FirstSweep:
        """Sum the samples and the features of each class, at the points of a group."""
        with self._settled() as (plan, samples):
            points, K = plan.groups[group], plan.num_classes
            widths = {point: plan.widths[point] for point in points}
            declared = {p: [s for s in plan.statistics[p] if not s.second_sweep] for p in points}
            tallies = {(_TALLY, n): request.tally for n, request in enumerate(self.requests)}
            counted = {key: tally(K) for key, tally in tallies.items() if tally and group == 0}
            sums = self._sums(
                {_COUNTS: (K,)} | dict.fromkeys(counted, (K,)) | _shapes(declared, K, widths)
            )
            for key, tally in counted.items():
                sums.add(key, tally)

            def add(point: Point, features: Tensor, labels: Tensor) -> None:
                batch = LayerBatch(features, labels, K)
                for each in declared[point]:
                    sums.add((point, each.name), each.of(batch))  # type: ignore[arg-type]
                if point == points[0]:
                    sums.add(_COUNTS, batch.counts)

            reading = self._share(plan, samples)
            cache = self._cache(plan, reading, widths)
            take: TakeBatch = add if cache is None else cache.keep
            head = sweep(self.runner, reading, points, take, plan.head)
            if cache is not None:
                cache.replay(add)
            require_finite({point: sums.view((point, ClassSums.name)) for point in points})
        return _FirstSweep(plan, points, samples, reading, cache, head, sums)

    def _second_sweep(
        self, first: _FirstSweep, totals: dict[Hashable, Tensor]
    ) -> tuple[dict[Point, Centres], Sums]:
        """Sum what depends on the final class means; return the centres as well."""
        plan, points, counts = first.plan, first.points, totals[_COUNTS]
        centres = {p: centres_of(counts, totals[p, ClassSums.name]) for p in points}
        # features that are read again may have changed; cached ones cannot
        read_again: list[Statistic] = [ResidualSums()] if first.cache is None else []
        declared = {
            p: [s for s in plan.statistics[p] if s.second_sweep] + read_again for p in points
        }
        sums = self._sums(_shapes(declared, plan.num_classes, plan.widths))

        def add(point: Point, features: Tensor, labels: Tensor) -> None:
            head = first.head if point in first.classifiers else None
            classifier = head and classifier_of(head, point, features.shape[1])
            batch = ResidualBatch(features, labels, centres[point], bool(read_again), classifier)
            for each in declared[point]:
                sums.add((point, each.name), each.of(batch))

        if first.cache is not None:
            first.cache.replay(add)
        else:
            with self._guard((first.samples.dataset, first.samples.collate)):
                sweep(self.runner, first.reading, points, add)
        return centres, sums

    def _share(self, plan: Plan, samples: Samples) -> Reading:
        """The batches of this process.

        A process with one batch fewer than others reads an extra one, which does not count: forward
        passes of sharded networks communicate, and every process must see the head run.
        """
        world = self.processes.world
        own = plan.batches[self.processes.rank :: world]
        idle = -(-len(plan.batches) // world) - len(own)
        batches = own + plan.batches[:idle]
        return Reading(samples, batches, self.probe, plan.num_classes, plan.widths, idle)

    def _cache(self, plan: Plan, reading: Reading, widths: dict[Point, int]) -> FeatureCache | None:
        """A cache for the features of this process; None unless those of every process fit."""
        largest = -(-len(plan.batches) // self.processes.world) * len(plan.batches[0].indices)
        if not FeatureCache.fits(widths, largest, self.probe.cache_mb, plan.bytes_each):
            return None
        return FeatureCache(widths, sum(len(batch.indices) for batch in reading.own))


def _shapes(
    declared: Mapping[Point, Sequence[Statistic]], K: int, widths: Mapping[Point, int]
) -> dict[Hashable, tuple[int, ...]]:
    return {
        (point, each.name): each.shape(K, widths[point])
        for point, statistics in declared.items()
        for each in statistics
    }


def _of(place: Hashable, totals: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
    """The sums of one place, by name."""
    named = {key: total for key, total in totals.items() if isinstance(key, tuple)}
    return {name: total for (at, name), total in named.items() if at == place}


def _geometry(point: Point, centres: Centres, totals: dict[Any, Tensor]) -> ClassGeometry:
    """The geometry of a layer from the sums over all processes."""
    counts, means, directions, _, scale = centres
    own = {each.name: totals[each.name] for each in GEOMETRY}
    made_use_of = {*own, ClassSums.name, ResidualSums.name}
    others = {name: total for name, total in totals.items() if name not in made_use_of}
    geometry = ClassGeometry(counts, means, directions.rank, **own, statistics=others, scale=scale)
    if ResidualSums.name in totals:
        require_unchanged(point, geometry, totals[ResidualSums.name])
    return geometry


def _classifier(point: Point, head: Head, geometry: ClassGeometry) -> ClassifierGeometry:
    """The classifier, with the geometry of its input."""
    mismatches, correct = geometry.statistics[Decisions.name]
    weight, bias = classifier_of(head, point, geometry.means.shape[1])
    return ClassifierGeometry(
        geometry,
        weight,
        bias,
        mismatches.sum() / geometry.counts.sum(),
        correct / geometry.counts,
        head.is_affine,
    )
