"""The class of each sample, from the dataset if it declares labels, otherwise from the batches."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

_LABEL_KEYS = ("labels", "label", "targets", "target", "y")
# Counts are kept for every class up to the largest label. A label from here on is no class index
# but an identifier, and is refused before anything of its size is allocated.
_MOST_CLASSES = 2**20


def unpack_batch(batch: Any) -> tuple[Any, Any]:
    """Split a batch into the network's inputs and the labels.

    Raises:
        TypeError: If the batch is neither a pair nor a dict with a key for labels.

    Example:
        >>> unpack_batch({"input_ids": [[1, 2]], "labels": [0]})
        ({'input_ids': [[1, 2]]}, [0])
    """
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping):
        for key in _LABEL_KEYS:
            if key in batch:
                return {name: value for name, value in batch.items() if name != key}, batch[key]
        found = f"a dict with keys {', '.join(map(repr, batch))}"
    elif isinstance(batch, tuple | list):
        found = f"a {type(batch).__name__} of {len(batch)} items"
    else:
        found = f"a {type(batch).__name__}"
    raise TypeError(
        f"Cannot tell inputs from labels in {found}. Pass a function that separates them: "
        "Probe(..., unpack=lambda batch: (inputs, labels))."
    )


def class_indices(labels: Any, num_classes: int | None = None) -> Tensor:
    """Convert the labels of a batch to class indices.

    A trailing axis of size one is dropped. Floating-point labels are accepted if they are whole
    numbers (the targets of a one-logit head).

    Args:
        labels: Shape ``(N,)`` or ``(N, 1)``.
        num_classes: The number of classes; None to allow any label from 0 to a million.

    Returns:
        Shape ``(N,)``, int64.

    Raises:
        TypeError: If labels are not a tensor.
        ValueError: If they are soft, multi-label, negative, or out of range.

    Example:
        >>> class_indices(torch.tensor([[0.0], [1.0]]))
        tensor([0, 1])
    """
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"Labels must be a tensor of class indices, got {type(labels).__name__}. "
            "Return a tensor from Probe(unpack=...)."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or bool(
        (labels != labels.round()).any() if labels.is_floating_point() else 0
    ):
        kind = "soft" if labels.ndim == 1 else "soft or multi-label"
        raise ValueError(
            f"Got {kind} targets of shape {tuple(labels.shape)} and {labels.dtype}, but the "
            "geometry of classes needs one class index per sample. If there is one, return it from "
            "Probe(unpack=...), for example targets.argmax(1)."
        )
    labels = labels.long()
    low, high = torch.stack(labels.aminmax()).tolist() if len(labels) else (0, 0)
    bound = _MOST_CLASSES if num_classes is None else num_classes
    if low < 0 or high >= bound:
        raise ValueError(
            f"Label {low if low < 0 else high} is out of range: classes are numbered from 0 to "
            f"{bound - 1}{' at most' if num_classes is None else ''}. Renumber or leave out such "
            "samples in Probe(unpack=...) or in the dataset."
        )
    return labels


def dataset_labels(dataset: Any) -> Tensor | None:
    """Return the labels that a dataset declares, without reading a sample.

    Labels are declared by ``targets`` or ``labels``, to which the dataset's ``target_transform`` is
    applied, or by the last tensor of a `TensorDataset`. `Subset` and `ConcatDataset` pass them on.
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
        declared: Any = dataset.tensors[-1] if len(dataset.tensors) > 1 else None
    else:
        declared = getattr(dataset, "targets", getattr(dataset, "labels", None))
    transform = getattr(dataset, "target_transform", None)
    if declared is not None and transform is not None:
        declared = [transform(target) for target in declared]
    return _as_labels(declared, len(dataset))


def _as_labels(declared: Any, size: int) -> Tensor | None:
    try:
        labels = class_indices(torch.as_tensor(np.asarray(declared)))
    except (TypeError, ValueError, RuntimeError):
        return None  # not class indices: labels come from the batches
    return labels if len(labels) == size else None
