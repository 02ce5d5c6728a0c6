"""What a measurement looks at, settled once: samples, classes, head and layers."""

import hashlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Subset

from lightning_nc.callbacks.classes import (
    settle_classes,
    settle_head,
    settle_head_name,
    settle_labels,
)
from lightning_nc.callbacks.request import Request
from lightning_nc.probe.blocks import block_points
from lightning_nc.probe.data import (
    Probe,
    ProbeBatch,
    Samples,
    form_batches,
    seeded_order,
    stratified,
)
from lightning_nc.probe.hooks import capture
from lightning_nc.probe.labels import dataset_labels
from lightning_nc.probe.layers import Point, match_layers, named_modules
from lightning_nc.probe.runner import Runner
from lightning_nc.probe.sweep import Reading, labelled_batches
from lightning_nc.probe.trace import Run, Trace, trace

# of K x d float64 numbers each at the peak, by measurement: sums and residuals with the copies that
# a reduction takes, means, directions, and what a singular value decomposition works with
_ACCUMULATORS = 12


class Plan(NamedTuple):
    """A measurement, settled.

    Attributes:
        source_size: Size of the dataset for which it holds.
        source: Gives that dataset, while it exists.
        declared: Whether the dataset declares its labels.
        batches: All batches, of all processes.
        num_classes: Number of classes K.
        head: Name of the classifier; None if none was found and none is needed.
        wanted: For each request, its layers' points and the point at the classifier's input.
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
    wanted: list[tuple[list[Point], Point | None]]
    widths: dict[Point, int]
    bytes_each: int
    digest: int


def make_plan(runner: Runner, samples: Samples, probe: Probe, requests: Sequence[Request]) -> Plan:
    """Look at a first batch, and settle what is measured; the same on every process."""
    if len(samples.dataset) == 0:
        raise ValueError(
            f"The source of the probe '{probe.key}' is empty, it has no samples; give one that has."
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

    wanted = [_points(runner, found, head, request) for request in requests]
    widths, bytes_each = _widths(runner, inputs, len(first.indices), wanted)
    plan = Plan(
        source_size=len(order),
        source=_reference(_innermost(samples.dataset)),
        declared=known.declared,
        batches=batches,
        num_classes=num_classes,
        head=None if head is None else head.name,
        wanted=wanted,
        widths=widths,
        bytes_each=bytes_each,
        digest=0,
    )
    return plan._replace(digest=_digest(plan))


def still_holds(plan: Plan, samples: Samples) -> bool:
    """Whether a plan fits the samples that the source has now, as far as it declares them."""
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
    """The dataset within subsets that may have been made for the occasion."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _reference(dataset: Any) -> Callable[[], Any]:
    """A weak reference, where there can be one: a plan must not keep old data alive."""
    try:
        return weakref.ref(dataset)
    except TypeError:  # a list of samples, say
        return lambda: dataset


def groups_within(plan: Plan, memory_mb: float) -> list[list[Point]]:
    """Split the points into groups whose accumulators fit into a budget together.

    Raises:
        ValueError: If those of one point do not.
    """
    groups: list[list[Point]] = [[]]
    used = 0.0
    for point, width in plan.widths.items():
        megabytes = 8 * _ACCUMULATORS * plan.num_classes * width / 2**20
        if megabytes > memory_mb:
            raise ValueError(
                f"Layer '{point.name}' has {width} features, for which accumulators of "
                f"{plan.num_classes} classes take {megabytes:.3g} MB, over the {memory_mb:.3g} MB "
                "of Probe(memory_mb=...): raise it, or pool= the layer to fewer features."
            )
        if used + megabytes > memory_mb:
            groups.append([])
            used = 0.0
        groups[-1].append(point)
        used += megabytes
    return groups


def _points(
    runner: Runner, found: Trace, head: Run | None, request: Request
) -> tuple[list[Point], Point | None]:
    runs = found.runs_of_each()
    points: list[Point] = []
    if request.layers == "blocks":
        points = block_points(found, head, request.pool)
    elif request.layers is not None:
        named = match_layers(request.layers, runs, named_modules(runner.model))
        points = [p if p.pool or p.module is None else replace(p, pool=request.pool) for p in named]
    if not request.classifier:
        return points, None
    assert head is not None
    last = runs[head.name] - 1
    return points, Point(f"input of {head.name}", head.name, last, "input", request.pool)


def _widths(
    runner: Runner,
    inputs: object,
    samples: int,
    wanted: Sequence[tuple[list[Point], Point | None]],
) -> tuple[dict[Point, int], int]:
    """Run the first batch once more to see how wide the features of each point are."""
    widths: dict[Point, int] = {}
    sizes: list[int] = []

    def note(point: Point, features: Tensor) -> None:
        widths[point] = features.shape[1]
        sizes.append(features.element_size())

    points = dict.fromkeys(_all_points(wanted))
    if not points:
        return {}, 0
    with capture(runner.model, list(points), call=runner.call) as watched, runner.precision():
        watched.forward(inputs, samples, note)
    return {point: widths[point] for point in points}, max(sizes)


def _all_points(wanted: Sequence[tuple[list[Point], Point | None]]) -> Iterator[Point]:
    for points, last in wanted:
        yield from points
        if last is not None:
            yield last


def _digest(plan: Plan) -> int:
    layers = [(p.name, p.module, p.run, p.side, width) for p, width in plan.widths.items()]
    batches = [(indices, None if of is None else of.tolist()) for _, indices, of in plan.batches]
    settled = (plan.source_size, batches, plan.num_classes, plan.head, layers)
    return int.from_bytes(hashlib.sha256(repr(settled).encode()).digest()[:7], "big")
