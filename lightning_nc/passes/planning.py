"""Making a plan: what is measured follows from a first batch, traced once, and the labels."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from lightning_nc.network.batches import ProbeBatch, Samples, form_batches, seeded_order, stratified
from lightning_nc.network.blocks import block_points
from lightning_nc.network.capture import capture
from lightning_nc.network.labels import dataset_labels
from lightning_nc.network.points import Point, match_layers, named_modules
from lightning_nc.network.runner import Runner
from lightning_nc.network.trace import ModuleRun, Trace, trace
from lightning_nc.passes.classes import (
    settle_classes,
    settle_head,
    settle_head_name,
    settle_labels,
)
from lightning_nc.passes.plan import Plan, Wanted, digest_of, groups_within, statistics_of
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Request
from lightning_nc.passes.sweeps import Reading, labelled_batches


def make_plan(runner: Runner, samples: Samples, probe: Probe, requests: Sequence[Request]) -> Plan:
    """Trace a first batch and settle what is measured; the plan is the same on every process.

    Args:
        runner: The network.
        samples: The source.
        probe: How to read it.
        requests: What to measure.

    Raises:
        ValueError: If the source is empty, or its labels, the head or the layers do not fit.
    """
    if len(samples.dataset) == 0:
        raise ValueError(
            f"The source of the probe '{probe.key}' has no samples. Give one that is not empty."
        )
    order = seeded_order(len(samples.dataset), probe.seed)
    first = ProbeBatch(0, order[: samples.batch_size].tolist(), None)
    reading = Reading(samples, [first], probe)
    _, inputs, labels = next(labelled_batches(runner, reading))
    with runner.precision():
        found = trace(runner.model, inputs, runner.call)

    known = settle_labels(runner, reading, order, labels, found)
    name = settle_head_name([request.head for request in requests])
    wants_classifier = any(request.classifier for request in requests)
    head = settle_head(found, name, int(known.labels.max()) + 1, wants_classifier)
    num_classes = settle_classes(known.labels, head)
    chosen = stratified(known.labels, probe.samples_per_class, probe.seed)
    batches = form_batches(known.indices[chosen], known.labels[chosen], samples.batch_size)

    wanted = [_where(runner, found, head, request) for request in requests]
    statistics = statistics_of(wanted)
    widths, bytes_each = _widths(runner, inputs, len(first.indices), wanted)
    plan = Plan(
        source_size=len(order),
        source=_reference(_innermost(samples.dataset)),
        declared=known.declared,
        batches=batches,
        num_classes=num_classes,
        head=None if head is None else head.name,
        wanted=wanted,
        statistics=statistics,
        groups=groups_within(probe.memory_mb, num_classes, widths, statistics),
        widths=widths,
        bytes_each=bytes_each,
        digest=0,
    )
    return plan._replace(digest=digest_of(plan))


def still_holds(plan: Plan, samples: Samples) -> bool:
    """Whether a plan still fits its source.

    The source must have the same size and, if it declares its labels, the same labels; otherwise it
    must be the same dataset object.

    Args:
        plan: The plan of an earlier measurement.
        samples: The samples that the source has now.
    """
    if plan.source_size != len(samples.dataset):
        return False
    if not plan.declared:
        return plan.source() is _innermost(samples.dataset)
    declared = dataset_labels(samples.dataset)
    return declared is not None and all(
        labels is not None and torch.equal(declared[indices], labels)
        for _, indices, labels in plan.batches
    )


def _innermost(dataset: Any) -> Any:
    """The dataset inside `Subset` wrappers, which may be created for each measurement."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _reference(dataset: Any) -> Callable[[], Any]:
    """A weak reference where possible: a plan must not keep old data alive."""
    try:
        return weakref.ref(dataset)
    except TypeError:  # such as a list of samples
        return lambda: dataset


def _where(runner: Runner, found: Trace, head: ModuleRun | None, request: Request) -> Wanted:
    """The points that answer a request."""
    runs = found.runs_of_each()
    points: list[Point] = []
    if request.layers == "blocks":
        points = block_points(found, head, request.pool)
    elif request.layers is not None:
        named = match_layers(request.layers, runs, named_modules(runner.model))
        points = [p if p.pool or p.module is None else replace(p, pool=request.pool) for p in named]
    if not request.classifier:
        return Wanted(points, None, request.statistics)
    assert head is not None
    last = runs[head.name] - 1
    classifier = Point(f"input of {head.name}", head.name, last, "input", request.pool)
    return Wanted(points, classifier, request.statistics)


def _widths(
    runner: Runner,
    inputs: object,
    samples: int,
    wanted: Sequence[Wanted],
) -> tuple[dict[Point, int], int]:
    """The feature dimension of each point and the bytes of a number, from a first batch."""
    widths: dict[Point, int] = {}
    sizes: list[int] = []

    def note(point: Point, features: Tensor) -> None:
        widths[point] = features.shape[1]
        sizes.append(features.element_size())

    points = dict.fromkeys(point for each in wanted for point in each.points)
    if not points:
        return {}, 0
    with capture(runner.model, list(points), call=runner.call) as watched, runner.precision():
        watched.forward(inputs, samples, note)
    return {point: widths[point] for point in points}, max(sizes)
