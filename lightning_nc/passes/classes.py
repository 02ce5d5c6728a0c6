"""The classes: the labels of the source, and those of them that are measured."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.network.batches import ProbeBatch
from lightning_nc.network.labels import counts_with, dataset_labels
from lightning_nc.network.runner import Runner
from lightning_nc.network.trace import Trace
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.sweeps import Reading, labelled_batches
from lightning_nc.wording import listed


class KnownLabels(NamedTuple):
    """Samples of a source whose labels are known, in seeded order.

    Attributes:
        indices: Their indices in the source, shape ``(M,)``.
        labels: Their labels, shape ``(M,)``.
        declared: Whether the dataset declares the labels; otherwise they were read.
    """

    indices: Tensor
    labels: Tensor
    declared: bool


def settle_labels(
    runner: Runner, reading: Reading, order: Tensor, first_labels: Tensor, found: Trace
) -> KnownLabels:
    """Use the labels that the dataset declares if its first batch confirms them, or read labels.

    Labels are read in seeded order until each class has ``samples_per_class``: the classes that the
    probe names, or as many as the last weight matrix has rows. If either is unknown, all labels are
    read.

    Args:
        runner: The network.
        reading: The source and the first batch.
        order: Indices of all samples in seeded order, shape ``(N,)``.
        first_labels: Labels of the first batch, shape ``(B,)``.
        found: A traced forward pass.

    Returns:
        Labels of the source, as far as they were declared or read.
    """
    declared = dataset_labels(reading.samples.dataset)
    first = reading.batches[0].indices
    if declared is not None and torch.equal(declared[first], first_labels.cpu()):
        return KnownLabels(order, declared[order], declared=True)
    quota = reading.probe.samples_per_class
    last = found.last_weighted()
    rows = None if last is None else last.rows
    named = None if reading.probe.classes is None else torch.tensor(reading.probe.classes)
    parts = torch.split(order, reading.samples.batch_size)
    batches = [ProbeBatch(number, part.tolist(), None) for number, part in enumerate(parts)]
    read: list[Tensor] = []
    counts = torch.zeros(max(rows or 0, 2), dtype=torch.long)
    for batch in labelled_batches(runner, reading._replace(batches=batches)):
        read.append(batch.labels.cpu())
        counts = counts_with(counts, read[-1])
        if quota is None or (rows is None and named is None):
            continue
        enough = counts >= quota
        of_named = named is not None and int(named.max()) < len(enough) and enough[named].all()
        if of_named or (named is None and enough.all()):
            break
    known = torch.cat(read)
    return KnownLabels(order[: len(known)], known, declared=False)


def settle_classes(labels: Tensor, probe: Probe) -> Tensor:
    """The labels of the classes that are measured: those with enough samples.

    Args:
        labels: Labels of the source, shape ``(M,)``.
        probe: Says which classes, and how many samples are enough.

    Returns:
        Labels, ascending, shape ``(K,)``.

    Raises:
        ValueError: If a class that the probe names has no samples, or if there are fewer than two
            classes.
    """
    seen, n = torch.unique(labels, return_counts=True)
    if probe.classes is not None:
        named = torch.tensor(sorted(set(probe.classes)))
        missing = named[~torch.isin(named, seen)].tolist()
        if missing:
            raise ValueError(
                f"Probe(classes=...) names class {listed(missing, 10)}, of which the source "
                f"'{probe.key}' has no samples. Its classes are {listed(seen.tolist(), 10)}."
            )
        chosen = torch.isin(seen, named)
        seen, n = seen[chosen], n[chosen]
    classes = seen[n >= probe.min_samples_per_class]
    if len(seen) < 2:
        raise ValueError(
            f"The probe has samples of one class only ({int(seen[0])}), and measures compare "
            "classes. Give a source with several classes: probe=Probe(source=..., name=...)."
        )
    if len(classes) < 2:
        raise ValueError(
            f"Fewer than two classes have {probe.min_samples_per_class} samples or more: the "
            f"largest of {len(seen)} has {int(n.max())}. Lower Probe(min_samples_per_class=...)."
        )
    return classes
