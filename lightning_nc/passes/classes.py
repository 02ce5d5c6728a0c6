"""The classes: labels of the source, the head, and the number of classes K."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.network.batches import ProbeBatch
from lightning_nc.network.blocks import find_head
from lightning_nc.network.labels import dataset_labels
from lightning_nc.network.runner import Runner
from lightning_nc.network.trace import ModuleRun, Trace
from lightning_nc.passes.sweeps import Reading, labelled_batches


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

    Labels are read in seeded order until each class has ``samples_per_class``, for as many classes
    as the last weight matrix has rows. If either number is unknown, all labels are read.

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
    last = _last_weighted(found)
    rows = None if last is None else last.rows
    parts = torch.split(order, reading.samples.batch_size)
    batches = [ProbeBatch(number, part.tolist(), None) for number, part in enumerate(parts)]
    read: list[Tensor] = []
    counts = torch.zeros(max(rows or 0, 2), dtype=torch.long)
    for _, _, labels in labelled_batches(runner, reading._replace(batches=batches)):
        read.append(labels.cpu())
        new = read[-1].bincount(minlength=len(counts))
        counts = torch.nn.functional.pad(counts, (0, len(new) - len(counts))) + new
        if quota is not None and rows is not None and int(counts.min()) >= quota:
            break
    known = torch.cat(read)
    return KnownLabels(order[: len(known)], known, declared=False)


def settle_head_name(names: Iterable[str | None]) -> str | None:
    """The name that callbacks give the head; None if none of them does.

    Raises:
        ValueError: If they give different names.
    """
    given = sorted({name for name in names if name is not None})
    if len(given) > 1:
        raise ValueError(
            f"Callbacks on the same probe name different heads: {', '.join(given)}. Give each its "
            "own probe, with a different name: Probe(name=...)."
        )
    return given[0] if given else None


def settle_head(
    found: Trace, name: str | None, classes_seen: int, wants_classifier: bool
) -> ModuleRun | None:
    """The head, if it is required or its rows match the classes seen.

    Args:
        found: A traced forward pass.
        name: Name of the head, if the user gives it.
        classes_seen: Largest label + 1.
        wants_classifier: Whether a request needs the classifier.

    Returns:
        The run of the head; None if there is none and none is required.

    Raises:
        ValueError: If a head is required and cannot be identified, or if a named head does not
            run or has no weight matrix.
    """
    head, last = find_head(found, name, classes_seen), _last_weighted(found)
    if not wants_classifier:
        # a last layer with other rows may be that of an encoder, which says nothing about classes
        return head if head is not None and head.rows in (1, classes_seen) else None
    if head is None:
        raise ValueError(_no_head(last, classes_seen))
    later = last if last is not None and last.name != head.name else None
    if name is None and later is not None and (later.rows or 0) > classes_seen:
        raise ValueError(
            f"Cannot tell which layer is the head: '{head.name}' has a row for each of the "
            f"{classes_seen} classes in the probe, but '{later.name}', which runs later, has "
            f'{later.rows} rows. Name the head: head="{head.name}" or head="{later.name}".'
        )
    return head


def settle_classes(labels: Tensor, head: ModuleRun | None) -> int:
    """The number of classes K: the rows of the head, or without a head the classes seen.

    Args:
        labels: Labels of the source, shape ``(M,)``.
        head: The run of the head; None if there is none.

    Raises:
        ValueError: If fewer than two classes have samples, if one of the K classes has none, or if
            a label is K or more.
    """
    seen: list[int] = labels.bincount().nonzero().flatten().tolist()
    if len(seen) < 2:
        raise ValueError(
            f"The probe has samples of one class only ({seen[0]}), and measures compare classes. "
            "Give a source with several classes: probe=Probe(source=..., name=...)."
        )
    K = len(seen) if head is None or head.rows is None else max(head.rows, 2)
    owner = f"{K} classes" if head is None else f"the {K} rows of the head '{head.name}'"
    if seen[-1] >= K:
        raise ValueError(
            f"Label {seen[-1]} is out of range for {owner}. Number the classes 0 .. {K - 1} in the "
            "dataset or in Probe(unpack=...)."
        )
    missing = sorted(set(range(K)) - set(seen))
    if missing:
        raise ValueError(
            f"The probe has no samples of class {', '.join(map(str, missing[:10]))}, for {owner}. "
            "Give a source that has all classes, name the right head=, or renumber the labels."
        )
    return K


def _last_weighted(found: Trace) -> ModuleRun | None:
    """The run of the last module with a weight matrix; None if there is none."""
    return next((run for run in reversed(found.runs) if run.rows is not None), None)


def _no_head(last: ModuleRun | None, classes_seen: int) -> str:
    what = f"; the last layer, '{last.name}', has {last.rows} rows" if last is not None else ""
    return (
        f"Found no head: no module with a weight row for each of {classes_seen} classes ran{what}. "
        f"Either label {classes_seen - 1} is out of range and must be corrected (classes are "
        'numbered from 0), or the head must be named: head="classifier" (measure() works without '
        "a head: head=False)."
    )
