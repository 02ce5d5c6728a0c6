"""What a measurement looks at, settled once: samples, classes, head and layers."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.probe.blocks import block_points, find_head
from lightning_nc.probe.data import (
    Probe,
    ProbeBatch,
    Samples,
    form_batches,
    seeded_order,
    stratified,
)
from lightning_nc.probe.hooks import call_model, capture
from lightning_nc.probe.labels import dataset_labels
from lightning_nc.probe.layers import Layers, Point, Pool, match_layers, named_modules
from lightning_nc.probe.runner import Runner
from lightning_nc.probe.sweep import Reading, labelled_batches
from lightning_nc.probe.trace import Run, Trace, trace

_ACCUMULATORS = 5  # of K x d float64 numbers each: sums, means, residuals, directions, workspace


class Request(NamedTuple):
    """What one callback wants to know.

    Attributes:
        layers: Layers whose geometry it wants; None for none.
        pool: Makes features of layers that have no callable of their own.
        classifier: Whether it wants the last-layer features and the classifier.
        head: Name of the classifier; None to find it.
    """

    layers: Layers | None = None
    pool: Pool | None = None
    classifier: bool = False
    head: str | None = None


class Plan(NamedTuple):
    """A measurement, settled.

    Attributes:
        source_size: Size of the dataset for which it holds.
        batches: All batches, of all processes.
        num_classes: Number of classes K.
        head: Name of the classifier; None if none was found and none is needed.
        wanted: For each request, its layers' points and the point at the classifier's input.
        widths: Feature dimension of each point.
        bytes_each: Bytes of a feature as it is cached.
        digest: Equal on all processes if all of this is.
    """

    source_size: int
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
    reading = Reading(samples, [first], probe, None)
    _, inputs, labels = next(labelled_batches(runner, reading))
    declared = dataset_labels(samples.dataset)
    if declared is not None and not torch.equal(declared[first.indices], labels.cpu()):
        declared = None  # the dataset changes its labels on the way: read them instead
    known = labels if declared is None else declared

    with runner.precision():
        found = trace(runner.model, inputs, call_model)
    head = _settle_head(found, requests, int(known.max()) + 1)
    num_classes = (2 if head.rows == 1 else head.rows) if head is not None else None

    if declared is None:
        indices, labels = _read_labels(runner, reading, order, num_classes)
    else:
        indices, labels = order, declared[order]
    num_classes = _require_classes(labels, num_classes, head)
    chosen = stratified(indices, labels, probe.samples_per_class, probe.seed)
    batches = form_batches(indices[chosen], labels[chosen], samples.batch_size)

    wanted = [_points(runner, found, head, request) for request in requests]
    widths, bytes_each = _widths(runner, inputs, len(first.indices), wanted)
    name = head.name if head is not None else None
    plan = Plan(len(order), batches, num_classes, name, wanted, widths, bytes_each, digest=0)
    return plan._replace(digest=_digest(plan))


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


def _settle_head(found: Trace, requests: Sequence[Request], classes_seen: int) -> Run | None:
    names = {request.head for request in requests if request.head is not None}
    if len(names) > 1:
        raise ValueError(
            f"Callbacks that share a probe name different heads: {', '.join(sorted(names))}. Give "
            "them probes of different names: Probe(name=...)."
        )
    head = find_head(found, next(iter(names), None), classes_seen)
    if any(request.classifier for request in requests):
        if head is None:
            raise ValueError(_no_head(found, classes_seen))
    elif head is not None and head.rows not in (1, classes_seen):
        return None  # an encoder, perhaps: its last layer says nothing about classes
    return head


def _no_head(found: Trace, classes_seen: int) -> str:
    last = [run for run in found.runs if run.rows is not None][-1:]
    what = f": the last layer, '{last[0].name}', has {last[0].rows} rows" if last else ""
    return (
        f"Found no head: no module with a weight row for each of {classes_seen} classes ran{what}. "
        f"Either label {classes_seen - 1} is out of range: correct it. Or name the head: "
        'head="classifier" (in measure(), head=False measures the layers alone).'
    )


def _require_classes(labels: Tensor, num_classes: int | None, head: Run | None) -> int:
    """K: the head's rows, else the classes seen; every one must have samples."""
    seen: list[int] = labels.bincount().nonzero().flatten().tolist()
    K = num_classes if num_classes is not None else len(seen)
    if len(seen) < 2:
        raise ValueError(
            f"The probe has samples of one class only ({seen[0]}): separation compares classes. "
            "Give a source with several classes: probe=Probe(source=..., name=...)."
        )
    owner = f"the {K} rows of the head '{head.name}'" if head is not None else f"{K} classes"
    if seen[-1] >= K:
        raise ValueError(
            f"Label {seen[-1]} is out of range for {owner}: number the classes 0 .. {K - 1} in the "
            "dataset or in Probe(unpack=...)."
        )
    missing = sorted(set(range(K)) - set(seen))
    if missing:
        raise ValueError(
            f"The probe has no samples of class {', '.join(map(str, missing[:10]))}, for {owner}: "
            "give a source that has all classes, name the right head=, or renumber the labels."
        )
    return K


def _read_labels(
    runner: Runner, reading: Reading, order: Tensor, num_classes: int | None
) -> tuple[Tensor, Tensor]:
    """Read samples in seeded order until every class has its quota; all if K is unknown."""
    quota = reading.probe.samples_per_class
    parts = torch.split(order, reading.samples.batch_size)
    batches = [ProbeBatch(number, part.tolist(), None) for number, part in enumerate(parts)]
    read: list[Tensor] = []
    for _, _, labels in labelled_batches(runner, reading._replace(batches=batches)):
        read.append(labels.cpu())
        if quota is not None and num_classes is not None:
            counts = torch.cat(read).bincount(minlength=num_classes)
            if int(counts.min()) >= quota:
                break
    labels = torch.cat(read)
    return order[: len(labels)], labels


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
    with capture(runner.model, list(points)) as watched, runner.precision():
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
