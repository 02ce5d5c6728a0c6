"""What targets are that are no class indices, and the way out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from lightning_nc.network.nesting import described


def are_positions(labels: Tensor) -> bool:
    """Whether labels are those of the positions of sequences (N, T) or images (N, H, W).

    Zeros and ones of two axes (N, K) say instead which of K classes a sample has.
    """
    if labels.is_floating_point() or labels.ndim < 2:
        return False
    return labels.ndim > 2 or not _are_zeros_and_ones(labels)


def what_targets_are(targets: Tensor) -> str:
    """Say what targets are that give no single class per sample.

    Args:
        targets: Of any shape, but not whole numbers of shape ``(N,)``.
    """
    if targets.ndim == 0:
        return "one for the whole batch. Return one label per sample from Probe(unpack=...)."
    if are_positions(targets):
        return (
            "labels of the positions of a sequence or image, but each sample needs one label. "
            "Return one from Probe(unpack=...), or make each position a sample of the dataset."
        )
    if targets.ndim > 2:
        return (
            "a second view or an image, but each sample needs a label. Give labelled data: "
            'Probe(dataset, name="my_probe").'
        )
    if targets.ndim == 2 and _sum_to_one(targets):
        if _are_zeros_and_ones(targets):
            return "one-hot labels. Return targets.argmax(1) from Probe(unpack=...)."
        return (
            "soft labels, as of mixup or label smoothing. Measure data without mixup, "
            'Probe(dataset, name="clean"), or return targets.argmax(1) from Probe(unpack=...).'
        )
    if _are_zeros_and_ones(targets):
        return (
            "multi-label targets, but each sample needs one class. To measure a single label, "
            "return its column from Probe(unpack=...), targets[:, 0], with head=False, since the "
            "head has no row for samples without it."
        )
    return (
        "not class indices. A regression has no classes to measure; if each sample has a class, "
        "return its index from Probe(unpack=...)."
    )


def no_numbers(labels: Any) -> str:
    """Say what labels are that are no numbers."""
    if labels is None:
        way_out = 'Give labelled data: Probe(dataset, name="my_probe").'
    elif _are_names(labels):
        way_out = (
            "Number the names in the dataset, or in Probe(unpack=...): "
            "torch.tensor([names.index(label) for label in labels])."
        )
    elif isinstance(labels, Mapping | tuple | list):
        way_out = "Return one of these from Probe(unpack=...)."
    else:
        way_out = "Return a tensor of them from Probe(unpack=...)."
    return f"Labels must be a class index for each sample, got {described(labels)}. {way_out}"


def out_of_range(low: int, high: int, most: int) -> str:
    """Say how to mend labels that are negative or too large.

    Args:
        low: The least label.
        high: The greatest label.
        most: How many classes there may be.
    """
    text = (
        f"Label {low if low < 0 else high} is out of range: classes are numbered from 0 to "
        f"{most - 1} at most. "
    )
    if low == -100:
        return text + "Leave samples to be ignored out of the dataset: torch.utils.data.Subset."
    if low < 0:
        example = "(labels > 0).long()" if (low, high) == (-1, 1) else f"labels + {-low}"
    else:
        example = "torch.searchsorted(ids, labels), where ids are the distinct labels, sorted"
    return text + (
        f"Renumber them in Probe(unpack=...), such as {example}, or leave such samples out of the "
        "dataset: torch.utils.data.Subset."
    )


def _are_zeros_and_ones(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1)).all())


def _sum_to_one(targets: Tensor) -> bool:
    """Whether each row holds shares of the classes, up to half precision."""
    shares = targets.double()
    return bool((shares >= 0).all() & ((shares.sum(1) - 1).abs() < 1e-2).all())


def _are_names(labels: Any) -> bool:
    if isinstance(labels, np.ndarray):
        return labels.dtype.kind in "USO"
    items = [labels] if isinstance(labels, str) else labels
    return isinstance(items, tuple | list) and any(isinstance(each, str) for each in items)
