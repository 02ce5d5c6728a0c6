"""Two sweeps over the probe, each followed by one vote and one reduction."""

from collections.abc import Hashable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.callbacks.checks import classifier_of, require_finite, require_unchanged
from lightning_nc.callbacks.measuring_pass import MeasuringPass
from lightning_nc.callbacks.plan import Plan, groups_within
from lightning_nc.callbacks.request import Answer, ClassifierGeometry
from lightning_nc.functional.class_geometry import (
    ClassGeometry,
    SeparatingDirections,
    class_spread,
    class_sums,
    separating_directions,
)
from lightning_nc.functional.classifier import (
    classifier_decisions,
    nearest_class_centers,
)
from lightning_nc.metrics.sweep import SweepState
from lightning_nc.probe.data import Samples
from lightning_nc.probe.hooks import Head
from lightning_nc.probe.layers import Point
from lightning_nc.probe.sweep import Consume, FeatureCache, Reading, sweep


class _Local(NamedTuple):
    """What a process knows after its first sweep."""

    plan: Plan
    points: list[Point]
    samples: Samples
    reading: Reading
    cache: FeatureCache | None
    head: Head | None
    sums: SweepState


class _Centres(NamedTuple):
    """Samples per class, class means at each point, and tallies, over all processes."""

    counts: Tensor
    means: dict[Point, Tensor]
    tallies: dict[int, Tensor]


class GeometryPass(MeasuringPass):
    """The geometry of classes at layers, for several requests on one probe."""

    def run(self) -> list[Answer]:
        """Measure, and answer each request; on failure raise on all processes."""
        layers: dict[Point, ClassGeometry] = {}
        classifiers: dict[Point, ClassifierGeometry] = {}
        tallies: dict[int, Tensor] = {}
        group, groups = 0, 1
        while group < groups:  # usually once: a further group is for layers over the memory budget
            local = self.processes.agree(partial(self._first_sweep, group), self._digest)
            centres = _centres(local.sums.compute())
            work = partial(self._second_sweep, local, centres)
            directions, state = self.processes.agree(work, self._digest)
            spreads = state.compute()
            layers |= {p: _geometry(p, centres, directions[p], spreads) for p in local.points}
            classifiers |= _classifiers(local, layers, spreads)
            tallies |= centres.tallies
            group, groups = group + 1, len(groups_within(local.plan, self.probe.memory_mb))
        assert self.plan is not None
        return [
            Answer(
                {point.name: layers[point] for point in points},
                classifiers[last] if last is not None else None,
                centres.counts,
                tallies.get(number),
            )
            for number, (points, last) in enumerate(self.plan.wanted)
        ]

    def _first_sweep(self, group: int) -> _Local:
        """Counts and sums of each class, at every point of a group."""
        with self._settled() as (plan, samples):
            world = self.processes.world
            points = groups_within(plan, self.probe.memory_mb)[group]
            own = plan.batches[self.processes.rank :: world]
            # a process with a batch less reads one more all the same: forward passes of sharded
            # networks communicate, and all processes must see the head
            idle = -(-len(plan.batches) // world) - len(own)
            batches = own + plan.batches[:idle]
            reading = Reading(samples, batches, self.probe, plan.num_classes, plan.widths, idle)
            widths = {point: plan.widths[point] for point in points}
            K = plan.num_classes
            tallies = {
                ("tally", number): request.tally
                for number, request in enumerate(self.requests)
                if request.tally is not None and group == 0
            }
            state = self._state(
                {"counts": (K,)}
                | {point: (K, width) for point, width in widths.items()}
                | dict.fromkeys(tallies, (K,))
            )
            for name, tally in tallies.items():
                state.update(name, tally(K))

            def add(point: Point, features: Tensor, labels: Tensor) -> None:
                counts, sums = class_sums(features, labels, K)
                state.update(point, sums)
                if point == points[0]:
                    state.update("counts", counts)

            size = sum(len(batch.indices) for batch in own)
            largest = -(-len(plan.batches) // world) * len(plan.batches[0].indices)
            fits = FeatureCache.fits(widths, largest, self.probe.cache_mb, plan.bytes_each)
            cache = FeatureCache(widths, size) if fits else None
            consume: Consume = add if cache is None else cache.keep
            head = sweep(self.runner, reading, points, consume, plan.head)
            if cache is not None:
                cache.replay(add)
            require_finite(state, points)
        return _Local(plan, points, samples, reading, cache, head, state)

    def _second_sweep(
        self, local: _Local, centres: _Centres
    ) -> tuple[dict[Point, SeparatingDirections], SweepState]:
        """Squared residuals about the final means, and the classifier's decisions."""
        counts, means = centres.counts, centres.means
        K = len(counts)
        directions = {p: separating_directions(counts, means[p]) for p in local.points}
        classifiers = {last for _, last in local.plan.wanted if last in local.points}
        read_again = local.cache is None  # and may have changed; kept features cannot
        shapes: dict[Hashable, tuple[int, ...]] = {(p, "spread"): (3, K) for p in local.points}
        if read_again:
            shapes |= {(p, "residuals"): tuple(means[p].shape) for p in local.points}
        state = self._state(shapes | {(p, "decisions"): (2, K) for p in classifiers})

        def add(point: Point, features: Tensor, labels: Tensor) -> None:
            along = directions[point]
            spread = class_spread(
                features, labels, means[point], along.fuzziness, along.collapse, read_again
            )
            state.update((point, "spread"), torch.stack(spread[:3]))
            if read_again:
                state.update((point, "residuals"), spread.residuals)
            if point in classifiers and local.head is not None:
                weight, bias = classifier_of(local.head, point, features.shape[1])
                decided = classifier_decisions(features, weight, bias)
                mismatched = decided != nearest_class_centers(features, means[point])
                of_class = [labels[which] for which in (mismatched, decided == labels)]
                counted = [which.bincount(minlength=K) for which in of_class]
                state.update((point, "decisions"), torch.stack(counted))

        if local.cache is not None:
            local.cache.replay(add)
        else:
            with self._guard((local.samples.dataset, local.samples.collate)):
                sweep(self.runner, local.reading, local.points, add)
        return directions, state


def _centres(sums: dict[Hashable, Tensor]) -> _Centres:
    counts = sums.pop("counts")
    tallies = {key[1]: sums[key] for key in sums if isinstance(key, tuple) and key[0] == "tally"}
    points = {key: total for key, total in sums.items() if isinstance(key, Point)}
    means = {point: total / counts[:, None] for point, total in points.items()}
    return _Centres(counts, means, tallies)


def _geometry(
    point: Point,
    centres: _Centres,
    directions: SeparatingDirections,
    spreads: dict[Hashable, Tensor],
) -> ClassGeometry:
    """The geometry of a layer from the sums of all processes."""
    spread = spreads[(point, "spread")]
    geometry = ClassGeometry(centres.counts, centres.means[point], directions.rank, *spread)
    if (point, "residuals") in spreads:
        require_unchanged(point, geometry, spreads[(point, "residuals")])
    return geometry


def _classifiers(
    local: _Local, layers: dict[Point, ClassGeometry], spreads: dict[Hashable, Tensor]
) -> dict[Point, ClassifierGeometry]:
    """The classifier on the last-layer features, if they are among the points of this group."""
    found: dict[Point, ClassifierGeometry] = {}
    for point in local.points:
        if (point, "decisions") in spreads and local.head is not None:
            geometry = layers[point]
            mismatches, correct = spreads[(point, "decisions")]
            weight, bias = classifier_of(local.head, point, geometry.means.shape[1])
            found[point] = ClassifierGeometry(
                geometry,
                weight,
                bias,
                mismatches.sum() / geometry.counts.sum(),
                correct / geometry.counts,
                local.head.is_affine,
            )
    return found
