"""Samples in memory, as batches or as inputs and labels, made into a dataset."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_nc.network.nesting import described

_LISTS = (tuple, list)
_PARTS = (Tensor, np.ndarray, Mapping, *_LISTS)


class BatchedSamples(Dataset[Any]):
    """The single samples of batches.

    Args:
        batches: Tensors, and lists of text, with an entry per sample, in tuples, lists or dicts.

    Raises:
        ValueError: If parts of a batch differ in length, or batches in anything but their length.
    """

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches
        self.ends = list(accumulate(map(_size_of, batches)))
        kinds = [_map(_kind_of, each) for each in batches]
        for number, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise ValueError(
                    "The batches cannot be read together, since their samples differ: the first "
                    f"batch is {described(batches[0])}, and number {number + 1} is "
                    f"{described(batches[number])}. Pad them to one size, or give the DataLoader "
                    "that makes them."
                )

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Any:
        number = bisect_right(self.ends, index)
        row = index - (self.ends[number - 1] if number else 0)
        return _map(lambda part: part[row], self.batches[number])


def source_of(data: Any, model: nn.Module) -> Any:
    """Return a source of a probe: data in memory as a dataset, anything else as it is.

    Data in memory are a list or tuple of batches, or inputs and labels as a tuple, list or dict. An
    item of a list is a batch if all its parts have an entry per sample, and one of them has more
    than one axis. A list of anything else is a dataset of samples.

    Args:
        data: What the user gives.
        model: The network; floating-point arrays of NumPy are read in the type of its parameters.

    Raises:
        TypeError: If the data can be read only once, or not at all, or are no numbers.
        ValueError: If parts of a batch differ in length, or batches in anything but their length.

    Example:
        >>> X, y = np.zeros((3, 2)), [0, 1, 1]
        >>> source_of((X, y), nn.Linear(2, 2))[2]
        (tensor([0., 0.]), tensor(1))
    """
    if _is_stream(data):
        raise TypeError(
            f"A {type(data).__name__} may not return the same samples again, and a measurement "
            "reads data more than once. Give a map-style dataset, or a list of its batches: "
            "list(batches)."
        )
    if not isinstance(data, tuple | list | Mapping):
        return data
    floating = filter(Tensor.is_floating_point, model.parameters())
    dtype = next((each.dtype for each in floating), torch.get_default_dtype())
    if isinstance(data, Mapping) or _is_inputs_and_labels(data):
        return BatchedSamples([_as_tensors(data, dtype)])
    if isinstance(data, tuple) and not all(isinstance(x, tuple | list | Mapping) for x in data):
        raise TypeError(
            f"Samples cannot be read from {described(data)}. Give a DataLoader or Dataset, a list "
            "of batches, or (X, y) as tensors or arrays."
        )
    if not data or not _is_batch(data[0]):
        return data
    samples = BatchedSamples([_as_tensors(each, dtype) for each in data])
    return DataLoader(samples, batch_size=max(map(_size_of, samples.batches)) or 1)


def _is_stream(data: Any) -> bool:
    """Whether data can only be iterated over, as a generator or a loader of a stream."""
    if isinstance(getattr(data, "dataset", data), IterableDataset):
        return True
    return hasattr(data, "__iter__") and not (
        hasattr(data, "__getitem__") or hasattr(data, "dataset")
    )


def _is_inputs_and_labels(data: Sequence[Any]) -> bool:
    """Whether the first item holds the inputs of all samples, rather than being a batch."""
    first, second = (*data, None, None)[:2]
    if isinstance(first, Mapping):
        return isinstance(second, Tensor | np.ndarray)
    return isinstance(first, Tensor | np.ndarray)


def _is_batch(item: Any) -> bool:
    """Whether an item of a list is a batch, rather than a sample."""
    leaves = _leaves(item)
    several_axes = any(isinstance(x, Tensor | np.ndarray) and x.ndim > 1 for x in leaves)
    lengths = set(map(_length_of, leaves))
    return len(leaves) > 1 and several_axes and len(lengths) == 1 and None not in lengths


def _as_tensors(batch: Any, dtype: torch.dtype) -> Any:
    """The batch with tensors in place of arrays and of lists of numbers."""

    def converted(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            if part.dtype.kind not in "biufc":
                raise TypeError(
                    f"Inputs and labels must be numbers, got an array of {part.dtype}. Labels are "
                    "class indices: np.unique(labels, return_inverse=True)[1]."
                )
            # torch wants memory in its own order, which may be written to
            native = np.require(part, part.dtype.newbyteorder("="), ["C", "W"])
            part = torch.from_numpy(native)
            return part.to(dtype) if part.is_floating_point() else part
        numbers = isinstance(part, list | tuple) and all(isinstance(x, int | float) for x in part)
        return torch.tensor(part) if numbers else part

    return _map(converted, batch)


def _size_of(batch: Any) -> int:
    """The number of samples in a batch."""
    lengths = set(map(_length_of, _leaves(batch)))
    size = lengths.pop() if len(lengths) == 1 else None
    if size is None:
        raise ValueError(
            f"Inputs and labels must have an entry for each sample, got {described(batch)}."
        )
    return size


def _length_of(part: Any) -> int | None:
    """The number of entries of a part; None if it has none."""
    has_entries = part.ndim if isinstance(part, Tensor | np.ndarray) else isinstance(part, _LISTS)
    return len(part) if has_entries else None


def _kind_of(part: Any) -> Any:
    """What the entries of a part in different batches must have in common."""
    return (part.shape[1:], part.dtype) if isinstance(part, Tensor) else type(part)


def _leaves(batch: Any) -> list[Any]:
    """The parts of a batch that have an entry for each sample."""
    found: list[Any] = []
    _map(found.append, batch)
    return found


def _map(function: Callable[[Any], Any], batch: Any) -> Any:
    """Apply a function to the parts of a batch that have an entry for each sample."""
    if isinstance(batch, Mapping):
        return {name: _map(function, part) for name, part in batch.items()}
    # a tuple or list of anything else has the entries themselves
    if isinstance(batch, _LISTS) and batch and isinstance(batch[0], _PARTS):
        return tuple(_map(function, part) for part in batch)
    return function(batch)
