"""Sweeps over the probe: the network runs, and the features of each point are handed on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.guards.generators import seed_generators
from lightning_nc.network.batches import ProbeBatch, Samples, read_batches
from lightning_nc.network.capture import Head, capture
from lightning_nc.network.labels import class_indices, dataset_labels
from lightning_nc.network.points import Point
from lightning_nc.network.runner import Runner
from lightning_nc.network.unpacking import unpack_batch
from lightning_nc.passes.probe import Probe

_REPLAYED = 1024  # samples replayed at a time, so that (K, n) matrices stay small

TakeBatch = Callable[[Point, Tensor, Tensor], None]


class Reading(NamedTuple):
    """What a sweep reads, and what it expects.

    Attributes:
        samples: The source.
        batches: The batches of this process.
        probe: How to read them.
        num_classes: Number of classes K; None if not yet known.
        widths: Feature dimension of each point.
        idle: Number of batches at the end that do not count: they keep processes in step.
    """

    samples: Samples
    batches: Sequence[ProbeBatch]
    probe: Probe
    num_classes: int | None = None
    widths: Mapping[Point, int] = {}
    idle: int = 0

    @property
    def own(self) -> Sequence[ProbeBatch]:
        """The batches that count."""
        return self.batches[: len(self.batches) - self.idle]


def sweep(
    runner: Runner,
    reading: Reading,
    points: Sequence[Point],
    consume: TakeBatch,
    head: str | None = None,
) -> Head | None:
    """Run the network over the batches and call ``consume(point, features, labels)`` as it runs.

    Random numbers are seeded batch by batch, so that a second sweep sees the same features, on any
    number of processes.

    Args:
        runner: The network.
        reading: What to read.
        points: Where to take features.
        consume: Receives features, shape ``(n, d)``, and labels, shape ``(n,)``, on one device.
        head: Name of the head.

    Returns:
        The head as it was when it ran; None if it was not named or there was no batch.
    """
    held = runner.generators()
    with capture(runner.model, points, head, runner.call) as watched:
        for position, (number, inputs, labels) in enumerate(labelled_batches(runner, reading)):
            seed_generators(reading.probe.seed, number, held, runner.device)
            counts = position < len(reading.own)

            def hand_on(
                point: Point, features: Tensor, labels: Tensor = labels, counts: bool = counts
            ) -> None:
                if not counts:
                    return
                # devices without float64 accumulate on the CPU
                h = features.cpu() if features.device.type == "mps" else features
                require_width(point, h, reading.widths)
                consume(point, h, labels.to(h.device))

            with runner.precision():
                watched.forward(inputs, len(labels), hand_on)
    return watched.head


def labelled_batches(runner: Runner, reading: Reading) -> Iterator[tuple[int, Any, Tensor]]:
    """Yield for each batch its number, its inputs on the device, and its labels.

    Args:
        runner: The network.
        reading: What to read.

    Raises:
        ValueError: If labels are not class indices, or differ from those known before.
    """
    probe = reading.probe
    batches = read_batches(reading.samples, reading.batches, probe.seed, probe.num_workers)
    held = runner.generators()
    for planned, raw in batches:
        # hooks of the transfer may also draw random numbers
        seed_generators(probe.seed, planned.number, held, runner.device)
        inputs, targets = _unpacked(runner, reading, planned, runner.move(raw))
        # checked on the CPU, so that the host waits for the device once per batch
        labels = targets.cpu() if isinstance(targets, Tensor) else targets
        labels = class_indices(labels, reading.num_classes)
        check_labels(planned, labels)
        yield planned.number, inputs, labels.to(runner.device, non_blocking=True)


def _unpacked(runner: Runner, reading: Reading, planned: ProbeBatch, batch: Any) -> tuple[Any, Any]:
    """What the network is called with, and the labels."""

    def known() -> Tensor | None:
        if planned.labels is not None:
            return planned.labels
        declared = dataset_labels(reading.samples.dataset)
        return None if declared is None else declared[planned.indices]

    if reading.probe.unpack is not None:
        return reading.probe.unpack(batch)
    inputs, labels = unpack_batch(batch, known)
    return runner.inputs_of(batch, inputs), labels


def check_labels(planned: ProbeBatch, labels: Tensor) -> None:
    """Raise unless a batch has the labels by which its samples were chosen.

    Args:
        planned: The batch, with its labels if they are known.
        labels: The labels that were read, on the CPU, shape ``(n,)``.
    """
    if len(labels) != len(planned.indices):
        raise ValueError(
            f"A batch of {len(planned.indices)} samples came with {len(labels)} labels. The "
            "collate function or unpack must return one label per sample."
        )
    if planned.labels is None or torch.equal(labels, planned.labels):
        return
    position = int((labels != planned.labels).nonzero()[0])
    raise ValueError(
        f"Sample {planned.indices[position]} has label {int(labels[position])} in the batch that "
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


class FeatureCache:
    """Features of a sweep, kept unchanged for the second sweep, so that the network runs once.

    Args:
        widths: Feature dimension of each point.
        size: Number of samples in this process's batches.
    """

    def __init__(self, widths: Mapping[Point, int], size: int) -> None:
        self.widths, self.size = widths, size
        self._features: dict[Point, Tensor] = {}
        self._filled = dict.fromkeys(widths, 0)
        self._labels: dict[Point, list[Tensor]] = {point: [] for point in widths}

    @staticmethod
    def fits(widths: Mapping[Point, int], size: int, budget_mb: float, bytes_each: int) -> bool:
        """Whether the features of ``size`` samples fit into a budget."""
        return sum(widths.values()) * size * bytes_each <= budget_mb * 2**20

    def keep(self, point: Point, features: Tensor, labels: Tensor) -> None:
        """Store a copy of a batch, which the network cannot change later."""
        if point not in self._features:
            self._features[point] = features.new_empty(self.size, self.widths[point])
        start = self._filled[point]
        self._filled[point] = start + len(features)
        self._features[point][start : self._filled[point]] = features
        self._labels[point].append(labels)

    def replay(self, consume: TakeBatch) -> None:
        """Hand on all that was kept, point by point, some samples at a time."""
        for point, features in self._features.items():
            labels = torch.cat(self._labels[point])
            for start in range(0, len(labels), _REPLAYED):
                part = slice(start, start + _REPLAYED)
                consume(point, features[part], labels[part])
