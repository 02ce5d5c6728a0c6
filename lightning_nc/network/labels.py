"""The class of each sample, from the dataset if it declares labels, otherwise from the batches."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from lightning_nc.network.unpacking import could_be_labels
from lightning_nc.network.wrong_labels import no_numbers, out_of_range, what_targets_are

# Counts are kept for every class up to the largest label. A label from here on is no class index
# but an identifier, and is refused before anything of its size is allocated.
_MOST_CLASSES = 2**20


def class_indices(labels: Any) -> Tensor:
    """Convert the labels of a batch to class indices.

    A trailing axis of size one is dropped. Floating-point labels are accepted if they are whole
    numbers (the targets of a one-logit head), as are lists and NumPy arrays of whole numbers.

    Args:
        labels: Shape ``(N,)`` or ``(N, 1)``, from 0 to a million.

    Returns:
        Shape ``(N,)``, int64.

    Raises:
        TypeError: If labels are no numbers.
        ValueError: If they are not one class index per sample, negative, or out of range.

    Example:
        >>> class_indices(torch.tensor([[0.0], [1.0]]))
        tensor([0, 1])
    """
    labels = label_tensor(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not are_whole(labels):
        found = f"Got targets of shape {tuple(labels.shape)} and {labels.dtype}: "
        raise ValueError(found + what_targets_are(labels))
    labels = labels.long()
    low, high = torch.stack(labels.aminmax()).tolist() if len(labels) else (0, 0)
    if low < 0 or high >= _MOST_CLASSES:
        raise ValueError(out_of_range(low, high, _MOST_CLASSES))
    return labels


def label_tensor(labels: Any) -> Tensor:
    """Labels as a tensor; lists and arrays are accepted if they hold one whole number each.

    Raises:
        TypeError: If labels are anything else.
    """
    if isinstance(labels, Tensor):
        return labels
    if isinstance(labels, np.ndarray | np.generic) and labels.dtype.kind in "biuf":
        return torch.as_tensor(labels)
    if isinstance(labels, tuple | list) and len(labels):
        if all(isinstance(label, bool | int | np.integer | np.bool_) for label in labels):
            return torch.tensor([int(label) for label in labels])
        if all(isinstance(label, Tensor) and label.numel() == 1 for label in labels):
            return torch.stack([label.reshape(()) for label in labels])
    raise TypeError(no_numbers(labels))


def are_whole(labels: Tensor) -> bool:
    """Whether labels are whole numbers, of any type."""
    return not labels.is_floating_point() or bool((labels == labels.round()).all())


def dataset_labels(dataset: Any) -> Tensor | None:
    """Return the labels that a dataset declares, without reading a sample.

    Labels are declared by ``targets`` or ``labels``, to which the dataset's ``target_transform`` is
    applied, or by the second of two tensors of a `TensorDataset`, or the only one of several that
    has a whole number for each sample. `Subset` and `ConcatDataset` pass them on.
    Every batch that is read later is compared with the declared labels.

    Returns:
        Shape ``(N,)``, int64; None if the dataset declares no class indices.

    Example:
        >>> data = TensorDataset(torch.zeros(3, 2), torch.tensor([2, 0, 1]))
        >>> dataset_labels(Subset(data, [2, 0]))
        tensor([1, 2])
    """
    if isinstance(dataset, Subset):
        labels = dataset_labels(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [dataset_labels(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None
    if isinstance(dataset, TensorDataset):
        tensors: Any = dataset.tensors
        could_be = [1] if len(tensors) == 2 else could_be_labels(tensors)
        declared: Any = tensors[could_be[0]] if len(could_be) == 1 else None
    else:
        declared = getattr(dataset, "targets", getattr(dataset, "labels", None))
    transform = getattr(dataset, "target_transform", None)
    if declared is not None and transform is not None:
        declared = [transform(target) for target in declared]
    return _as_labels(declared, len(dataset))


def counts_with(counts: Tensor, labels: Tensor) -> Tensor:
    """Samples per class, shape ``(K,)``, with those of more labels; K grows with the largest.

    Example:
        >>> counts_with(torch.tensor([1, 1]), torch.tensor([0, 2]))
        tensor([2, 1, 1])
    """
    new = labels.bincount(minlength=len(counts)).to(counts)
    return new + torch.nn.functional.pad(counts, (0, len(new) - len(counts)))


def innermost(dataset: Any) -> Any:
    """Return the dataset inside `Subset` wrappers, which may be created for each measurement."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _as_labels(declared: Any, size: int) -> Tensor | None:
    try:
        labels = class_indices(torch.as_tensor(np.asarray(declared)))
    except (TypeError, ValueError, RuntimeError):
        return None  # not class indices: labels come from the batches
    return labels if len(labels) == size else None
