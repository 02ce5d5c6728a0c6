"""Pairs of classes, a block at a time: no K x K matrix is formed for many classes."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 2**20  # all pairs of up to 1,024 classes are one block


def row_blocks(K: int) -> list[slice]:
    """Slices of the rows of a K x K matrix."""
    rows = max(1, _BLOCK_ELEMENTS // max(K, 1))
    return [slice(start, min(start + rows, K)) for start in range(0, K, rows)]


def values_of_pairs(
    vectors: Tensor, compare: Callable[[Tensor, Tensor, slice], Tensor]
) -> Iterator[Tensor]:
    """Yield the numbers of all pairs i < j, a block at a time.

    Args:
        vectors: One per class, shape ``(K, d)``.
        compare: Receives ``a`` rows, the ``b`` rows from the first of these on, and the place of
            the ``a`` rows; returns a number for each pair, shape ``(a, b)``.
    """
    for rows in row_blocks(len(vectors)):
        first, second = vectors[rows], vectors[rows.start :]
        i, j = torch.triu_indices(len(first), len(second), 1, device=vectors.device)
        yield compare(first, second, rows)[i, j]


def mean_over_pairs(vectors: Tensor, compare: Callable[[Tensor, Tensor, slice], Tensor]) -> Tensor:
    """The mean over all pairs i < j of what a function returns for blocks of pairs.

    Args:
        vectors: One per class, shape ``(K, d)``.
        compare: Returns a number for each pair, as in `values_of_pairs`.

    Returns:
        A scalar; NaN for fewer than two vectors.

    Example:
        >>> mean_over_pairs(torch.tensor([[1.0], [2.0], [3.0]]), lambda v, u, _: v @ u.mT)
        tensor(3.6667)
    """
    K = len(vectors)
    total = vectors.new_zeros(())
    for values in values_of_pairs(vectors, compare):
        total = total + values.sum()
    return total / (K * (K - 1) / 2) if K > 1 else total + torch.nan


def spread_over_pairs(
    vectors: Tensor, compare: Callable[[Tensor, Tensor, slice], Tensor]
) -> Tensor:
    """The population standard deviation over all pairs i < j, as in `mean_over_pairs`.

    Args:
        vectors: One per class, shape ``(K, d)``.
        compare: Returns a number for each pair.

    Returns:
        A scalar; NaN for fewer than three vectors, since a single pair has no spread.

    Example:
        >>> vectors = torch.tensor([[1.0], [1.0], [2.0]])  # products 1, 2, 2
        >>> spread_over_pairs(vectors, lambda v, u, _: v @ u.mT)
        tensor(0.4714)
    """
    mean = mean_over_pairs(vectors, compare)
    squares = mean_over_pairs(vectors, lambda *pairs: (compare(*pairs) - mean).square())
    return squares.sqrt() if len(vectors) > 2 else torch.full_like(squares, torch.nan)
