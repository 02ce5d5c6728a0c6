"""Sums over the samples of each class: in a fixed order, so that their bits can be repeated."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Features are taken a block at a time: small enough for the cache of a CPU, and large enough that a
# GPU spends its time on them and not on starting kernels. A CPU reads a few rows of many columns
# nearly twice as fast as many rows of a few columns, which lie far apart in memory.
_BLOCK_ELEMENTS = 2**18
_BLOCK_ELEMENTS_ON_GPU = 2**23
_BLOCK_ROWS = 128
# Up to this many classes, a product with the matrix of class members is as fast as sorting samples
# by class, or faster; above, it costs K times as much as reading the values.
_FEW_CLASSES = 32


class ClassSums(NamedTuple):
    """The class sums that the first sweep accumulates; those of disjoint sets of samples add up.

    Attributes:
        counts: Samples per class, n_k, shape ``(K,)``.
        sums: Sum of the features of each class, shape ``(K, d)``.
    """

    counts: Tensor
    sums: Tensor


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> ClassSums:
    """Sum the features of each class, in the first of the two sweeps.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices in ``0 .. num_classes - 1``, shape ``(N,)``.
        num_classes: Number of classes K.

    Returns:
        `ClassSums`, float64.

    Example:
        >>> class_sums(torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]), 2).sums
        tensor([[3.],
                [5.]], dtype=torch.float64)
    """
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    add_features(sums, features, labels)
    return ClassSums(class_counts(labels, num_classes), sums)


def add_features(sums: Tensor, features: Tensor, labels: Tensor) -> None:
    """Add features to the sums of their classes, float64, shape ``(K, d)``, in place."""
    features = features.detach()
    for rows, columns in blocks(features):
        add_by_class(sums[:, columns], features[rows, columns], labels[rows])


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Samples per class n_k, shape ``(K,)``, float64."""
    return sum_by_class(torch.ones_like(labels, dtype=torch.float64), labels, num_classes)


def sum_by_class(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sum values of samples over each class, with the same bits on every call.

    Args:
        values: Shape ``(N,)`` or ``(N, d)``.
        labels: Class indices in ``0 .. num_classes - 1``, int64, shape ``(N,)``.
        num_classes: Number of classes K.

    Returns:
        Float64 sums, shape ``(K,)`` or ``(K, d)``.

    Example:
        >>> sum_by_class(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0, 0, 1]), 2)
        tensor([3., 5.], dtype=torch.float64)
    """
    shape = num_classes, *values.shape[1:]
    sums = torch.zeros(shape, dtype=torch.float64, device=values.device)
    add_by_class(sums, values, labels)
    return sums


def add_by_class(sums: Tensor, values: Tensor, labels: Tensor) -> None:
    """Add values of samples to the sums of their classes, in place and in a fixed order.

    A few classes are summed by a product with the ``(K, N)`` matrix of class members. Its size and
    cost grow with K; many classes are summed sample by sample instead. On a CPU, `index_add_` does
    so in the order of the samples. On CUDA it adds in no fixed order, but `index_put_` sorts the
    samples by class first.

    Args:
        sums: Float64 sums, shape ``(K,)`` or ``(K, d)``.
        values: Shape ``(N,)`` or ``(N, d)``.
        labels: Class indices in ``0 .. K - 1``, int64, shape ``(N,)``.
    """
    values = values.detach().double()
    if len(sums) <= _FEW_CLASSES:
        classes = torch.arange(len(sums), device=labels.device)
        sums += (classes[:, None] == labels).double() @ values
    elif values.device.type == "cpu":
        sums.index_add_(0, labels, values)
    else:
        sums.index_put_((labels,), values, accumulate=True)


def blocks(features: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of rows and columns, so that wide features are not copied to float64 as a whole."""
    N, d = features.shape
    on_cpu = features.device.type == "cpu"
    height = max(min(N, _BLOCK_ROWS) if on_cpu else N, 1)
    width = max(64, (_BLOCK_ELEMENTS if on_cpu else _BLOCK_ELEMENTS_ON_GPU) // height)
    return (
        (slice(row, row + height), slice(column, column + width))
        for row in range(0, N, height)
        for column in range(0, d, width)
    )
