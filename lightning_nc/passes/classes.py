"""Which classes there are: the labels of a source, the head, and their number K."""

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
        declared: Whether the dataset declares them; otherwise they were read.
    """

    indices: Tensor
    labels: Tensor
    declared: bool


def settle_labels(
    runner: Runner, reading: Reading, order: Tensor, first_labels: Tensor, found: Trace
) -> KnownLabels:
    """Take the labels that the dataset declares, if its first batch bears them out, or read them.

    Read are samples in seeded order until every class has its quota, as many classes as the last
    layer has rows.
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
    """The one name that callbacks give the head, if any does."""
    given = sorted({name for name in names if name is not None})
    if len(given) > 1:
        raise ValueError(
            f"Callbacks that share a probe name different heads: {', '.join(given)}. Give them "
            "probes of different names: Probe(name=...)."
        )
    return given[0] if given else None


def settle_head(
    found: Trace, name: str | None, classes_seen: int, wants_classifier: bool
) -> ModuleRun | None:
    """The classifier, where one is wanted or its rows are those of the classes seen.

    Raises:
        ValueError: If it is wanted and cannot be told.
    """
    head, last = find_head(found, name, classes_seen), _last_weighted(found)
    if not wants_classifier:
        # a last layer with other rows is an encoder's, perhaps: it says nothing about classes
        return head if head is not None and head.rows in (1, classes_seen) else None
    if head is None:
        raise ValueError(_no_head(last, classes_seen))
    later = last if last is not None and last.name != head.name else None
    if name is None and later is not None and (later.rows or 0) > classes_seen:
        raise ValueError(
            f"Cannot tell the head: '{head.name}' has a row for each of the {classes_seen} classes "
            f"in the probe, and '{later.name}', which runs later, has {later.rows} rows. Name it: "
            f'head="{head.name}" or head="{later.name}".'
        )
    return head


def settle_classes(labels: Tensor, head: ModuleRun | None) -> int:
    """K: the head's rows, else the classes seen; every one must have samples."""
    seen: list[int] = labels.bincount().nonzero().flatten().tolist()
    if len(seen) < 2:
        raise ValueError(
            f"The probe has samples of one class only ({seen[0]}): separation compares classes. "
            "Give a source with several classes: probe=Probe(source=..., name=...)."
        )
    K = len(seen) if head is None or head.rows is None else max(head.rows, 2)
    owner = f"{K} classes" if head is None else f"the {K} rows of the head '{head.name}'"
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


def _last_weighted(found: Trace) -> ModuleRun | None:
    """The last module with a weight matrix that ran."""
    return next((run for run in reversed(found.runs) if run.rows is not None), None)


def _no_head(last: ModuleRun | None, classes_seen: int) -> str:
    what = f": the last layer, '{last.name}', has {last.rows} rows" if last is not None else ""
    return (
        f"Found no head: no module with a weight row for each of {classes_seen} classes ran{what}. "
        f"Either label {classes_seen - 1} is out of range: correct it. Or name the head: "
        'head="classifier" (in measure(), head=False measures the layers alone).'
    )
