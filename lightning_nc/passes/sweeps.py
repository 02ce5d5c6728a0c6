"""Sweeps over the probe: the network runs, and the features of each point are handed on."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.guards.generators import seed_generators
from lightning_nc.network.batches import ProbeBatch, read_batches
from lightning_nc.network.capture import capture
from lightning_nc.network.head import Head
from lightning_nc.network.labels import class_indices, dataset_labels
from lightning_nc.network.nesting import plain
from lightning_nc.network.points import Point
from lightning_nc.network.positions import Positions, without_channel
from lightning_nc.network.runner import Runner, moved_tensor
from lightning_nc.network.samples import Samples
from lightning_nc.network.unpacking import unpack_batch
from lightning_nc.passes.decisions import SweptDecisions
from lightning_nc.passes.probe import Probe

TakeBatch = Callable[[Point, Tensor, Tensor], None]


class Reading(NamedTuple):
    """What a sweep reads, and what it expects.

    Attributes:
        samples: The source.
        batches: The batches of this process.
        probe: How to read them.
        classes: The labels of the K classes, ascending; None if not yet known.
        widths: Feature dimension of each point.
        of_positions: Whether labels are of positions.
        idle: Number of batches at the end that do not count: they keep processes in step.
    """

    samples: Samples
    batches: Sequence[ProbeBatch]
    probe: Probe
    classes: Tensor | None = None
    widths: Mapping[Point, int] = {}
    of_positions: bool = False
    idle: int = 0

    @property
    def own(self) -> Sequence[ProbeBatch]:
        """The batches that count."""
        return self.batches[: len(self.batches) - self.idle]


class Swept(NamedTuple):
    """What a sweep has found beside the features.

    Attributes:
        heads: The heads as they were when they ran, by name.
        decided: What the classifier at each point decides for the samples; see `SweptDecisions`.
        widths: Feature dimension of each point in the first batch.
        failures: What went wrong, by point or by name of the head.
    """

    heads: dict[str, Head]
    decided: dict[Point, Tensor]
    widths: dict[Point, int]
    failures: dict[Point | str, Exception]


def sweep(
    runner: Runner,
    reading: Reading,
    points: Sequence[Point],
    consume: TakeBatch,
    heads: Mapping[Point, str] = MappingProxyType({}),
    named: Collection[str] = (),
) -> Swept:
    """Run the network over the batches and call ``consume(point, features, labels)`` as it runs.

    Random numbers are seeded batch by batch, so that a second sweep sees the same features, on any
    number of processes. What fails at a point costs this point alone; the sweep ends when nothing
    is left.

    Args:
        runner: The network.
        reading: What to read.
        points: Where to take features.
        consume: Receives features, shape ``(n, d)``, and class indices, shape ``(n,)``, on one
            device.
        heads: Name of the head whose input a point is.
        named: Those heads that were named, rather than found.

    Returns:
        The heads, their decisions, and what went wrong.
    """
    if not points:
        return Swept({}, {}, {}, {})
    held = runner.generators()
    decisions = SweptDecisions(heads, named, sum(batch.size for batch in reading.own))
    widths: dict[Point, int] = {}
    runs = {name: point.run for point, name in heads.items()}
    with capture(runner.model, points, runs, runner.call) as watched:

        def hand_on(labels: Tensor, point: Point, features: Tensor) -> None:
            h = features.to(runner.device_of_sums)
            widths.setdefault(point, h.shape[1])
            require_width(point, h, reading.widths)
            decisions.take(point, h, watched)
            consume(point, h, labels.to(h.device))

        for place, batch in enumerate(labelled_batches(runner, reading)):
            seed_generators(reading.probe.seed, batch.number, held)
            with runner.precision():
                take = partial(hand_on, batch.labels) if place < len(reading.own) else _ignore
                output = watched.forward(batch.inputs, batch.items, take, batch.positions)
            decisions.add(watched, output, batch.positions)
            if all(point in watched.failures for point in points):
                break
    by_name = {name: head.on(runner.device_of_sums) for name, head in watched.heads.items()}
    return Swept(by_name, decisions.of_all(), widths, watched.failures)


def _ignore(_point: Point, _features: Tensor) -> None:
    """Take nothing from a batch that keeps processes in step."""


class LabelledBatch(NamedTuple):
    """A batch that was read.

    Attributes:
        number: Its position among the batches.
        inputs: What the network is called with, on the device.
        labels: The label of each sample, or its class index if the classes are known, shape
            ``(n,)``, on the device of sums.
        items: Number of sequences, images or other samples in the batch, N.
        positions: Which positions are samples; None if whole items are.
    """

    number: int
    inputs: Any
    labels: Tensor
    items: int
    positions: Positions | None


def labelled_batches(runner: Runner, reading: Reading) -> Iterator[LabelledBatch]:
    """Yield each batch with its labels, which are class indices 0 .. K - 1 if classes are known.

    Raises:
        ValueError: If labels are not class labels, or differ from those known before.
    """
    for planned, inputs, targets in unpacked_batches(runner, reading):
        positions, items = None, len(planned.indices)
        if reading.of_positions:
            ignored = reading.probe.ignore_index
            positions = Positions.of(targets, ignored, planned.items, planned.ranks)
            labels = class_indices(positions.labels(targets))
            positions = positions.to(runner.device)
        else:
            labels = class_indices(targets)
        require_single_items(planned, len(labels) if positions is None else len(targets))
        check_labels(planned, labels)
        if reading.classes is not None:
            labels = torch.searchsorted(reading.classes, labels)
        labels = moved_tensor(labels, runner.device_of_sums)
        yield LabelledBatch(planned.number, inputs, labels, items, positions)


def unpacked_batches(runner: Runner, reading: Reading) -> Iterator[tuple[ProbeBatch, Any, Any]]:
    """Yield each batch with its inputs on the device, and its labels as they are, on the CPU."""
    probe = reading.probe
    batches = read_batches(reading.samples, reading.batches, probe.seed, probe.num_workers)
    held = runner.generators()
    for planned, raw in batches:
        # hooks of the transfer may also draw random numbers
        seed_generators(probe.seed, planned.number, held)
        inputs, targets = _unpacked(runner, reading, planned, runner.move(raw))
        # checked on the CPU, so that the host waits for the device once per batch
        if isinstance(targets, Tensor):
            targets = without_channel(plain(targets).cpu())
        yield planned, inputs, targets


def _unpacked(runner: Runner, reading: Reading, planned: ProbeBatch, batch: Any) -> tuple[Any, Any]:
    """What the network is called with, and the labels."""

    def known() -> Tensor | None:
        if planned.labels is not None:
            return planned.labels
        declared = dataset_labels(reading.samples.dataset)
        return None if declared is None else declared[planned.indices]

    if reading.probe.unpack is not None:
        inputs, labels = reading.probe.unpack(batch)
        return runner.way.named(inputs), labels
    inputs, labels = unpack_batch(batch, known)
    return runner.way.inputs_of(batch, inputs), labels


def require_single_items(planned: ProbeBatch, labelled: int) -> None:
    """Raise unless each item of a dataset has become one labelled sample, sequence or image.

    Args:
        planned: The batch.
        labelled: How many it has labels for.
    """
    n = len(planned.indices)
    if labelled != n:
        of_one = (
            "if they are of its positions, such as the nodes of a graph, give labels and outputs "
            "an axis for the sample: Probe(..., unpack=lambda batch: (batch, batch.y[None]), "
            "forward=lambda module, batch: module(...)[None])"
        )
        of_several = (
            "if items of the dataset are several crops or views, give data of single ones: "
            "Probe(dataset, name=...)"
        )
        raise ValueError(
            f"A batch of {n} sample{'s' * (n > 1)} came with {labelled} labels. The collate "
            "function or unpack must return one label per sample, or map of labels; "
            f"{of_one if n == 1 else of_several}."
        )


def check_labels(planned: ProbeBatch, labels: Tensor) -> None:
    """Raise unless a batch has the labels by which its samples were chosen.

    Args:
        planned: The batch, with its labels if they are known.
        labels: The labels that were read, on the CPU, shape ``(n,)``.
    """
    if planned.labels is None or torch.equal(labels, planned.labels):
        return
    position = int((labels != planned.labels).nonzero()[0])
    raise ValueError(
        f"Sample {planned.index_of(position)} has label {int(labels[position])} in the batch that "
        f"was read, but the dataset declared or returned {int(planned.labels[position])} before. "
        "Give a dataset whose labels do not change: probe=Probe(source=dataset, name=...)."
    )


def require_width(point: Point, features: Tensor, widths: Mapping[Point, int]) -> None:
    """Raise unless the features of a point are as wide as those of the first batch.

    Args:
        point: The point.
        features: Its features, shape ``(n, d)``.
        widths: Expected feature dimension d of each point.
    """
    if features.shape[1] != widths[point]:
        raise ValueError(
            f"'{point.name}' has {features.shape[1]} features per sample in this batch but had "
            f"{widths[point]} in the first, and features of varying size have no class means. Give "
            'layers=[...] without "input", pool= them to a fixed size, or pad all data alike.'
        )
