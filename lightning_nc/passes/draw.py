"""Drawing the probe: which samples of a source, or which positions in it, of which classes."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.network.batches import ProbeBatch, form_batches, stratified
from lightning_nc.network.labels import class_indices, counts_with
from lightning_nc.network.positions import Positions
from lightning_nc.network.runner import Runner
from lightning_nc.network.trace import Trace
from lightning_nc.passes.classes import settle_classes, settle_labels
from lightning_nc.passes.sweeps import Reading, require_single_items, unpacked_batches

_MOST_POSITIONS = 2**20  # positions that are read to draw from, of however long a source


class Drawn(NamedTuple):
    """The samples of a probe.

    Attributes:
        batches: The batches of all processes.
        classes: The labels of the K classes, ascending, shape ``(K,)``.
        labels: The label of each sample of the probe, shape ``(N,)``.
        num_labels: Largest label of the source + 1.
        declared: Whether the dataset declares its labels.
    """

    batches: list[ProbeBatch]
    classes: Tensor
    labels: Tensor
    num_labels: int
    declared: bool


def draw_samples(
    runner: Runner, reading: Reading, order: Tensor, first_labels: Tensor, found: Trace
) -> Drawn:
    """Draw samples of each class; see `settle_labels` for the arguments."""
    probe = reading.probe
    known = settle_labels(runner, reading, order, first_labels, found)
    classes = settle_classes(known.labels, probe)
    of_classes = torch.isin(known.labels, classes).nonzero().flatten()
    chosen = of_classes[stratified(known.labels[of_classes], probe.samples_per_class, probe.seed)]
    labels = known.labels[chosen]
    batches = form_batches(known.indices[chosen], labels, reading.samples.batch_size)
    return Drawn(batches, classes, labels, int(known.labels.max()) + 1, known.declared)


def draw_positions(runner: Runner, reading: Reading, order: Tensor, rows: int | None) -> Drawn:
    """Draw positions of each class, at random among those of the sequences or images that are read.

    They are read in seeded order: at least as many as samples per class, and on until each class
    has enough positions, as far as classes are known, or until a million positions were read.

    Args:
        runner: The network.
        reading: The source.
        order: Indices of all sequences or images in seeded order.
        rows: Number of rows of the last weight matrix, if there is one.

    Raises:
        ValueError: If there are no labelled positions, or fewer than two classes.
    """
    probe, size = reading.probe, reading.samples.batch_size
    quota = probe.samples_per_class
    parts = [ProbeBatch(n, part.tolist(), None) for n, part in enumerate(torch.split(order, size))]
    random = torch.Generator().manual_seed(probe.seed)
    kept = _Candidates(quota)
    for planned, _, targets in unpacked_batches(runner, reading._replace(batches=parts)):
        positions = Positions.of(targets, probe.ignore_index)
        require_single_items(planned, len(targets))
        starts = torch.searchsorted(positions.items, positions.items)
        ranks = torch.arange(len(positions.items)) - starts
        labels = class_indices(positions.labels(targets))
        items = torch.tensor(planned.indices)[positions.items]
        kept.add(items, ranks, labels, torch.rand(len(labels), generator=random))
        read = (planned.number + 1) * size
        if kept.seen >= _MOST_POSITIONS:
            break
        if quota is not None and read >= quota and kept.enough(probe.classes, rows):
            break
    if not kept.seen:
        raise ValueError(
            f"All positions are labelled {probe.ignore_index}, which is ignored. Give labels of "
            "classes, or another Probe(ignore_index=...)."
        )
    return _drawn(kept, reading, order)


def _drawn(kept: "_Candidates", reading: Reading, order: Tensor) -> Drawn:
    """The batches of the sequences or images that hold the positions drawn."""
    items, ranks, labels, _ = kept.joined()
    classes = settle_classes(labels, reading.probe)
    of_classes = torch.isin(labels, classes)
    items, ranks, labels = items[of_classes], ranks[of_classes], labels[of_classes]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    sorted_ = torch.argsort(place[items] * (int(ranks.max()) + 1) + ranks)
    items, ranks, labels = items[sorted_], ranks[sorted_], labels[sorted_]
    held, number = torch.unique_consecutive(items, return_inverse=True)
    count = -(-len(held) // reading.samples.batch_size)
    batches, start = [], 0
    for index, part in enumerate(held.tensor_split(count)):
        inside = (number >= start) & (number < start + len(part))
        batches.append(
            ProbeBatch(index, part.tolist(), labels[inside], number[inside] - start, ranks[inside])
        )
        start += len(part)
    return Drawn(batches, classes, labels, kept.num_labels, False)


class _Candidates:
    """Positions to draw from: for each class those with the smallest of random numbers.

    Args:
        quota: Positions to keep of each class; None for all.
    """

    def __init__(self, quota: int | None) -> None:
        self.quota, self.seen, self.num_labels = quota, 0, 0
        self.counts = torch.zeros(0, dtype=torch.long)
        self._parts: list[tuple[Tensor, ...]] = []

    def add(self, items: Tensor, ranks: Tensor, labels: Tensor, numbers: Tensor) -> None:
        """Add positions, each with its item, its rank there, its label and a random number."""
        if not len(labels):
            return
        self.seen += len(labels)
        self.num_labels = max(self.num_labels, int(labels.max()) + 1)
        self.counts = counts_with(self.counts, labels)
        self._parts.append((items, ranks, labels, numbers))
        if len(self._parts) > 64:
            self._parts = [self.joined()]

    def enough(self, classes: object, rows: int | None) -> bool:
        """Whether each class has enough positions, as far as classes are known."""
        assert self.quota is not None
        wanted = sorted(classes) if isinstance(classes, list | tuple) else range(max(rows or 2, 2))
        counts = dict(enumerate(self.counts.tolist()))
        return all(counts.get(k, 0) >= self.quota for k in wanted)

    def joined(self) -> tuple[Tensor, ...]:
        """All candidates that are kept: items, ranks, labels and numbers."""
        items, ranks, labels, numbers = (
            torch.cat(parts) for parts in zip(*self._parts, strict=True)
        )
        by_number = numbers.argsort(stable=True)
        order = by_number[labels[by_number].argsort(stable=True)]
        sorted_labels = labels[order]
        rank_in_class = torch.arange(len(order)) - torch.searchsorted(sorted_labels, sorted_labels)
        if self.quota is not None:
            order = order[rank_in_class < self.quota]
        return items[order], ranks[order], labels[order], numbers[order]
