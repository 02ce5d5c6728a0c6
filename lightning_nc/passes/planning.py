"""Making a plan: what is measured follows from a first batch, traced once, and the labels."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_nc.network.batches import ProbeBatch, seeded_order
from lightning_nc.network.capture import capture
from lightning_nc.network.class_names import names_of_classes
from lightning_nc.network.labels import class_indices, dataset_labels, innermost
from lightning_nc.network.points import Point
from lightning_nc.network.positions import Positions, are_of_positions
from lightning_nc.network.runner import Runner
from lightning_nc.network.samples import Samples
from lightning_nc.network.trace import Trace, trace
from lightning_nc.passes.draw import Drawn, draw_positions, draw_samples
from lightning_nc.passes.heads import num_logits_of
from lightning_nc.passes.layer_notes import split_note
from lightning_nc.passes.places import Places
from lightning_nc.passes.plan import (
    Plan,
    Wanted,
    add_statistics,
    digest_of,
    megabytes_of,
    points_of,
)
from lightning_nc.passes.position_notes import position_notes
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Request
from lightning_nc.passes.statistics import Statistic
from lightning_nc.passes.sweeps import Reading, unpacked_batches


def make_plan(
    runner: Runner,
    samples: Samples,
    probe: Probe,
    requests: Sequence[Request],
    failed: Mapping[int, Exception] = MappingProxyType({}),
    processes: int = 1,
) -> Plan:
    """Trace a first batch and settle what is measured; the plan is the same on every process.

    A request that cannot be met costs only itself.

    Args:
        runner: The network.
        samples: The source.
        probe: How to read it.
        requests: What to measure.
        failed: Why some requests have failed already, by number.
        processes: Number of processes that measure together.

    Raises:
        ValueError: If the source is empty, or if its labels do not fit.
    """
    if len(samples.dataset) == 0:
        raise ValueError(
            f"The source of the probe '{probe.key}' has no samples. Give one that is not empty."
        )
    structure = structure_of(runner.model)  # before a pass, which may leave shards together
    order = seeded_order(len(samples.dataset), probe.seed)
    first = ProbeBatch(0, order[: samples.batch_size].tolist(), None)
    reading = Reading(samples, [first], probe)
    _, inputs, targets = next(unpacked_batches(runner, reading))
    with runner.precision():
        found = trace(runner.model, inputs, runner.call)
    reading, positions, drawn = _drawn(runner, reading, order, targets, found)
    classes, num_logits = drawn.classes, num_logits_of(found, drawn.num_labels)
    found = found.answering(num_logits)

    places = Places(runner, reading, found, inputs, drawn)
    failures = dict(failed)
    wanted = places.of_all(requests, failures)
    widths, bytes_each, broken = _widths(runner, inputs, len(first.indices), positions, wanted)
    budget = _Budget(probe.memory_mb, len(classes), widths, processes)
    statistics = _statistics(wanted, failures, broken, budget)
    notes = split_note(runner.model)
    if reading.of_positions:
        notes |= position_notes(inputs, targets, probe.ignore_index, classes, found)
    needed = points_of(wanted)
    plan = Plan(
        source_size=len(order),
        source=_reference(innermost(samples.dataset)),
        declared=drawn.declared,
        structure=structure,
        of_positions=reading.of_positions,
        batches=drawn.batches,
        classes=classes,
        class_names=names_of_classes(samples.dataset, classes),
        num_labels=places.num_labels,
        num_logits=num_logits,
        wanted=wanted,
        failures={n: error for n, error in failures.items() if n not in failed},
        notes=notes,
        statistics={point: statistics[point] for point in needed},
        megabytes={p: budget.megabytes(p, statistics[p]) for p in needed},
        widths={point: widths[point] for point in needed},
        bytes_each=bytes_each,
        digest=0,
    )
    return plan._replace(digest=digest_of(plan, probe, requests))


def _drawn(
    runner: Runner, reading: Reading, order: Tensor, targets: Any, found: Trace
) -> tuple[Reading, Positions | None, Drawn]:
    """What is measured: samples, or positions where labels are of these."""
    if not are_of_positions(targets, found.output_shape):
        return reading, None, draw_samples(runner, reading, order, class_indices(targets), found)
    reading = reading._replace(of_positions=True)
    positions = Positions.of(targets, reading.probe.ignore_index).to(runner.device)
    last = found.last_weighted()
    drawn = draw_positions(runner, reading, order, None if last is None else last.rows)
    return reading, positions, drawn


def still_holds(plan: Plan, samples: Samples, model: nn.Module) -> bool:
    """Whether a plan still fits its source and the network.

    The source must have the same size and, if it declares its labels, the same labels; otherwise it
    must be the same dataset object. The network must have the same structure.

    Args:
        plan: The plan of an earlier measurement.
        samples: The samples that the source has now.
        model: The network as it is now.
    """
    if plan.source_size != len(samples.dataset) or plan.structure != structure_of(model):
        return False
    if not plan.declared:
        return plan.source() is innermost(samples.dataset)
    declared = dataset_labels(samples.dataset)
    return declared is not None and all(
        each.labels is not None and torch.equal(declared[each.indices], each.labels)
        for each in plan.batches
    )


def structure_of(model: nn.Module) -> int:
    """A number that changes if modules are added, removed or replaced, or parameters resized.

    Networks that grow in training have new blocks, and heads have rows for new classes.
    """
    modules = tuple((name, type(module)) for name, module in model.named_modules())
    return hash((modules, tuple(parameter.shape for parameter in model.parameters())))


def _reference(dataset: Any) -> Callable[[], Any]:
    """A weak reference where possible: a plan must not keep old data alive."""
    try:
        return weakref.ref(dataset)
    except TypeError:  # such as a list of samples
        return lambda: dataset


def _widths(
    runner: Runner,
    inputs: object,
    samples: int,
    positions: Positions | None,
    wanted: Sequence[Wanted | None],
) -> tuple[dict[Point, int], int, dict[Point | str, Exception]]:
    """The feature dimension of each point, the bytes of a number, and what went wrong."""
    widths: dict[Point, int] = {}
    sizes: list[int] = []

    def note(point: Point, features: Tensor) -> None:
        widths[point] = features.shape[1]
        sizes.append(features.element_size())

    points = points_of(wanted)
    if not points:
        return {}, 0, {}
    with capture(runner.model, points, call=runner.call) as watched, runner.precision():
        watched.forward(inputs, samples, note, positions)
    return widths, max(sizes, default=0), watched.failures


class _Budget(NamedTuple):
    """The memory that the accumulators of a single point may take, and what it depends on."""

    memory_mb: float
    num_classes: int
    widths: Mapping[Point, int]
    processes: int

    def megabytes(self, point: Point, statistics: Sequence[Statistic]) -> float:
        """What the accumulators of these statistics take at a point."""
        return megabytes_of(self.num_classes, self.widths[point], statistics, self.processes)

    def require(self, point: Point, statistics: Sequence[Statistic]) -> None:
        """Raise if that exceeds the budget.

        Raises:
            ValueError: If so.
        """
        megabytes = self.megabytes(point, statistics)
        if megabytes > self.memory_mb:
            raise ValueError(
                f"Layer '{point.name}' has {self.widths[point]} features, whose accumulators for "
                f"{self.num_classes} classes take {megabytes:.3g} MB, over the "
                f"{self.memory_mb:.3g} MB of Probe(memory_mb=...). Raise it, or pool= the layer to "
                "fewer features."
            )


def _statistics(
    wanted: list[Wanted | None],
    failures: dict[int, Exception],
    broken: Mapping[Point | str, Exception],
    budget: _Budget,
) -> dict[Point, list[Statistic]]:
    """The statistics summed at each point.

    Args:
        wanted: Where the answer to each request comes from; None takes the place of those that
            cannot be answered.
        failures: Why requests have failed, by number; those that fail here are added.
        broken: What is wrong with points.
        budget: What a point may take.
    """
    statistics: dict[Point, list[Statistic]] = {}
    for number, each in enumerate(wanted):
        if each is None:
            continue
        try:
            with_its_own = dict(statistics)
            for point in each.points:
                if point in broken:
                    raise broken[point]
            add_statistics(with_its_own, each)
            for point in each.points:
                budget.require(point, with_its_own[point])
            statistics = with_its_own
        except Exception as error:
            failures[number], wanted[number] = error, None
    return statistics
