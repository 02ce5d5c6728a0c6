"""Sums over the samples of each class: in a fixed order, so that their bits can be repeated."""

from collections.abc import Iterator
from functools import cached_property

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


class ClassMembers:
    """Which samples are of which class, to add their values to the sums of their classes.

    A few classes are summed by a product with the ``(K, N)`` matrix of class members. Its size and
    cost grow with K; many classes are summed sample by sample instead. On a CPU, `index_add_` does
    so in the order of the samples. On CUDA it adds in no fixed order, but `index_put_` sorts the
    samples by class first.

    Args:
        labels: Class indices in ``0 .. num_classes - 1``, int64, shape ``(N,)``.
        num_classes: Number of classes K.

    Example:
        >>> members = ClassMembers(torch.tensor([0, 0, 1]), 2)
        >>> members.counts, members.sums_of(torch.tensor([1.0, 2.0, 5.0]))
        (tensor([2., 1.], dtype=torch.float64), tensor([3., 5.], dtype=torch.float64))
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self.labels, self.num_classes = labels, num_classes

    @cached_property
    def matrix(self) -> Tensor:
        """1 where a sample is of a class, else 0, float64, shape ``(K, N)``."""
        classes = torch.arange(self.num_classes, device=self.labels.device)
        return (classes[:, None] == self.labels).double()

    @property
    def counts(self) -> Tensor:
        """Samples per class n_k, shape ``(K,)``, float64."""
        return self.sums_of(torch.ones_like(self.labels, dtype=torch.float64))

    def sums_of(self, values: Tensor) -> Tensor:
        """Sum values over each class: shape ``(N,)`` to ``(K,)``, or ``(N, m)`` to ``(K, m)``."""
        sums = self._zeros(values)
        self.add(sums, values)
        return sums

    def sums_of_features(self, features: Tensor) -> Tensor:
        """Sum features over each class, shape ``(N, d)`` to ``(K, d)``, a block at a time."""
        sums = self._zeros(features)
        self.add_features(sums, features)
        return sums

    def add_features(self, sums: Tensor, features: Tensor) -> None:
        """Add features to the sums of their classes, float64, shape ``(K, d)``, in place."""
        features = features.detach()
        for rows, columns in blocks(features):
            self.add(sums[:, columns], features[rows, columns], rows)

    def add(self, sums: Tensor, values: Tensor, rows: slice = slice(None)) -> None:
        """Add values to the sums of their classes, in place and in a fixed order.

        Args:
            sums: Float64 sums, shape ``(K,)`` or ``(K, d)``.
            values: Those of the samples in ``rows``, shape ``(n,)`` or ``(n, d)``.
            rows: Samples whose values are given.
        """
        values = values.detach().double()
        if self.num_classes <= _FEW_CLASSES:
            sums += self.matrix[:, rows] @ values
        elif values.device.type == "cpu":
            sums.index_add_(0, self.labels[rows], values)
        else:
            sums.index_put_((self.labels[rows],), values, accumulate=True)

    def _zeros(self, values: Tensor) -> Tensor:
        shape = self.num_classes, *values.shape[1:]
        return torch.zeros(shape, dtype=torch.float64, device=values.device)


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
