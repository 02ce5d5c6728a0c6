"""Two sweeps over the probe, each followed by one vote and one reduction."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.callbacks.plan import Plan, Request, groups_within, make_plan
from lightning_nc.callbacks.processes import Processes
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
    two_row_head,
)
from lightning_nc.metrics.sweep import SweepState
from lightning_nc.probe.data import Probe, Samples, samples_of
from lightning_nc.probe.guards import unobtrusive
from lightning_nc.probe.hooks import Head
from lightning_nc.probe.layers import Point
from lightning_nc.probe.runner import Runner
from lightning_nc.probe.sweep import Consume, FeatureCache, Reading, sweep


class ClassifierGeometry(NamedTuple):
    """The last layer: its features and the classifier on them.

    Attributes:
        features: Geometry of the classifier's input.
        weight: Classifier W, shape ``(K, d)``; a one-logit head read as two rows.
        bias: Classifier bias b, shape ``(K,)``; None without one.
        mismatch: Share of samples whose nearest class centre the classifier does not choose.
        accuracy: Share of samples whose class the classifier chooses.
    """

    features: ClassGeometry
    weight: Tensor
    bias: Tensor | None
    mismatch: Tensor
    accuracy: Tensor


class Answer(NamedTuple):
    """What a request is told: geometry of its layers by name, in depth, and of the classifier."""

    layers: dict[str, ClassGeometry]
    classifier: ClassifierGeometry | None
    counts: Tensor


class _Local(NamedTuple):
    """What a process knows after its first sweep."""

    plan: Plan
    points: list[Point]
    samples: Samples
    reading: Reading
    idle: bool
    cache: FeatureCache | None
    head: Head | None
    sums: SweepState


class GeometryPass:
    """A measurement of the union of several requests, on one probe.

    Args:
        runner: The network.
        source: Finds the Dataset or DataLoader to read; called under guard.
        probe: How to read it.
        requests: What is to be measured.
        processes: With whom.
        plan: Of an earlier measurement; made anew if it does not fit the source.
    """

    def __init__(
        self,
        runner: Runner,
        source: Callable[[], Any],
        probe: Probe,
        requests: Sequence[Request],
        processes: Processes,
        plan: Plan | None = None,
    ) -> None:
        self.runner, self.source, self.probe = runner, source, probe
        self.requests, self.processes, self.plan = list(requests), processes, plan

    def run(self) -> list[Answer]:
        """Measure, and answer each request; on failure raise on all processes."""
        geometries: dict[Point, ClassGeometry] = {}
        classifiers: dict[Point, ClassifierGeometry] = {}
        group, groups = 0, 1
        while group < groups:  # usually once: a further group is for layers over the memory budget
            local = self.processes.agree(partial(self._first_sweep, group), self._digest)
            sums = local.sums.compute()
            work = partial(self._second_sweep, local, sums)
            directions, spreads = self.processes.agree(work, self._digest)
            self._read_off(local, sums, directions, spreads.compute(), geometries, classifiers)
            group, groups = group + 1, len(groups_within(local.plan, self.probe.memory_mb))
        assert self.plan is not None
        return [
            Answer(
                {point.name: geometries[point] for point in points},
                classifiers[last] if last is not None else None,
                sums["counts"],
            )
            for points, last in self.plan.wanted
        ]

    def _digest(self) -> int:
        return self.plan.digest if self.plan is not None else 0

    def _guard(self, data: Any) -> Any:
        return unobtrusive(self.runner.model, data, self.probe.batch_norm, self.runner.device)

    def _first_sweep(self, group: int) -> _Local:
        """Counts and sums of each class, at every point of a group."""
        with self._guard(None):
            samples = samples_of(self.source(), self.probe.batch_size)
        with self._guard((samples.dataset, samples.collate)):
            if self.plan is None or self.plan.source_size != len(samples.dataset):
                self.plan = make_plan(self.runner, samples, self.probe, self.requests)
            plan, world = self.plan, self.processes.world
            points = groups_within(plan, self.probe.memory_mb)[group]
            own = plan.batches[self.processes.rank :: world]
            # a process that owns no batch reads one all the same, to see the head
            reading = Reading(samples, own or plan.batches[:1], self.probe, plan.num_classes)
            widths = {point: plan.widths[point] for point in points}
            state = self._state(
                {"counts": (plan.num_classes,)}
                | {point: (plan.num_classes, width) for point, width in widths.items()}
            )

            def add(point: Point, features: Tensor, labels: Tensor) -> None:
                counts, sums = class_sums(features, labels, plan.num_classes)
                state.update(point, sums)
                if point == points[0]:
                    state.update("counts", counts)

            size = sum(len(batch.indices) for batch in reading.batches)
            largest = -(-len(plan.batches) // world) * len(plan.batches[0].indices)
            fits = FeatureCache.fits(widths, largest, self.probe.cache_mb, plan.bytes_each)
            cache = FeatureCache(widths, size) if fits else None
            consume: Consume = add if cache is None else cache.keep
            head = sweep(self.runner, reading, points, consume if own else _ignore, plan.head)
            if cache is not None and own:
                cache.replay(add)
            _require_finite(state, points)
        return _Local(plan, points, samples, reading, not own, cache, head, state)

    def _second_sweep(
        self, local: _Local, sums: dict[Hashable, Tensor]
    ) -> tuple[dict[Point, SeparatingDirections], SweepState]:
        """Squared residuals about the final means, and the classifier's decisions."""
        K = local.plan.num_classes
        counts = sums["counts"]
        means = {point: sums[point] / counts[:, None] for point in local.points}
        directions = {p: separating_directions(counts, means[p]) for p in local.points}
        classifiers = {last for _, last in local.plan.wanted if last in local.points}
        shapes: dict[Hashable, tuple[int, ...]] = {}
        for point in local.points:
            shapes |= {(point, "spread"): (3, K), (point, "residuals"): tuple(means[point].shape)}
        state = self._state(shapes | {(p, "decisions"): (2,) for p in classifiers})

        def add(point: Point, features: Tensor, labels: Tensor) -> None:
            along = directions[point]
            spread = class_spread(features, labels, means[point], along.fuzziness, along.collapse)
            state.update((point, "spread"), torch.stack(spread[:3]))
            state.update((point, "residuals"), spread.residuals)
            if point in classifiers and local.head is not None:
                weight, bias = _classifier_of(local.head, point, features.shape[1])
                decided = classifier_decisions(features, weight, bias)
                mismatches = (decided != nearest_class_centers(features, means[point])).sum()
                counted = torch.stack([mismatches, (decided == labels).sum()])
                state.update((point, "decisions"), counted)

        if local.cache is not None:
            if not local.idle:
                local.cache.replay(add)
        else:
            with self._guard((local.samples.dataset, local.samples.collate)):
                consume: Consume = _ignore if local.idle else add
                sweep(self.runner, local.reading, local.points, consume)
        return directions, state

    def _read_off(
        self,
        local: _Local,
        sums: dict[Hashable, Tensor],
        directions: dict[Point, SeparatingDirections],
        spreads: dict[Hashable, Tensor],
        geometries: dict[Point, ClassGeometry],
        classifiers: dict[Point, ClassifierGeometry],
    ) -> None:
        """Put the sums of all processes together."""
        counts = sums["counts"]
        for point in local.points:
            means = sums[point] / counts[:, None]
            spread = spreads[(point, "spread")]
            geometry = ClassGeometry(counts, means, directions[point].rank, *spread)
            _require_unchanged(point, geometry, spreads[(point, "residuals")])
            geometries[point] = geometry
            if (point, "decisions") in spreads and local.head is not None:
                mismatch, accuracy = spreads[(point, "decisions")] / counts.sum()
                weight, bias = _classifier_of(local.head, point, means.shape[1])
                classifiers[point] = ClassifierGeometry(geometry, weight, bias, mismatch, accuracy)

    def _state(self, shapes: dict[Hashable, tuple[int, ...]]) -> SweepState:
        device = self.runner.device
        on = torch.device("cpu") if device.type == "mps" else device
        world = self.processes.world
        return SweepState(shapes, self.processes.all_reduce if world > 1 else None, on)


def _classifier_of(head: Head, point: Point, width: int) -> tuple[Tensor, Tensor | None]:
    """The classifier's rows and biases, if they fit its input as it was pooled or flattened."""
    if head.weight.shape[1] != width:
        raise ValueError(
            f"The head '{point.module}' has weights for {head.weight.shape[1]} features, and its "
            f"input {width} per sample: give a pool= that makes of it what a row is multiplied "
            "with, such as the mean over the places of an image, pool=lambda h: h.mean((2, 3))."
        )
    return two_row_head(*head) if len(head.weight) == 1 else (head.weight, head.bias)


def _ignore(point: Point, features: Tensor, labels: Tensor) -> None:
    """A batch of weight zero."""


def _require_finite(state: SweepState, points: Sequence[Point]) -> None:
    broken = [point.name for point in points if not bool(state.view(point).isfinite().all())]
    if broken:
        raise ValueError(
            f"Features are not finite (NaN or infinity) at {', '.join(map(repr, broken[:5]))}; the "
            "network has diverged, or overflows in its precision."
        )


def _require_unchanged(point: Point, geometry: ClassGeometry, residuals: Tensor) -> None:
    """Residuals about the means sum to zero, unless features changed between the sweeps.

    A shift delta_k of the class means between the sweeps adds ``sum_k n_k ||delta_k||^2`` to the
    squared residuals; 1e-8 of them is more than any rounding, less than any digit promised.
    """
    n = geometry.counts.sum()
    shift = (residuals.square().sum(1) / geometry.counts).sum() / n
    spread = geometry.squares.sum() / n
    rounding = (1e-12 * torch.linalg.vector_norm(geometry.means, dim=1).max()) ** 2
    if bool((shift > 1e-8 * spread) & (shift > rounding)):
        raise RuntimeError(
            f"Features at '{point.name}' changed between the two sweeps: data or network are "
            "random beyond the seeds that a probe controls. Raise Probe(cache_mb=...) so that "
            "features are kept from the first sweep, or give data that are the same when read "
            "again."
        )
