"""Pairs of classes, a square of them at a time: no K x K matrix is formed for many classes."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_SIDE = 1024  # all pairs of up to so many classes are one square
_CLOSE = 1e-4  # a squared distance below this share of the squared norms has lost digits
_DIFFERENCES = 2**22  # components of differences that are held at a time

Compare = Callable[[slice, slice], Tensor]


class PairMoments(NamedTuple):
    """The mean and the population standard deviation over all pairs i < j, scalars."""

    mean: Tensor
    deviation: Tensor


def squares_of_pairs(K: int) -> list[tuple[slice, slice]]:
    """Rows and columns of squares that cover all pairs i <= j of K classes, each pair once."""
    parts = [slice(start, min(start + _SIDE, K)) for start in range(0, max(K, 1), _SIDE)]
    return [(rows, columns) for n, rows in enumerate(parts) for columns in parts[n:]]


def over_pairs(K: int, compare: Compare) -> Iterator[Tensor]:
    """Yield what a function returns for all pairs i < j, some pairs at a time.

    Args:
        K: Number of classes.
        compare: Receives the places of ``a`` classes and of ``b`` classes; returns a number for
            each pair of them, shape ``(a, b)``.
    """
    for rows, columns in squares_of_pairs(K):
        found = compare(rows, columns)
        if rows == columns:
            n = len(found)
            i, j = torch.triu_indices(n, n, 1, device=found.device)
            found = found[i, j]
        yield found


def mean_over_pairs(K: int, compare: Compare) -> Tensor:
    """The mean over all pairs i < j of what a function returns, as in `over_pairs`.

    Returns:
        A scalar; NaN for fewer than two classes.

    Example:
        >>> v = torch.tensor([[1.0], [2.0], [3.0]])
        >>> mean_over_pairs(3, lambda i, j: v[i] @ v[j].mT)
        tensor(3.6667)
    """
    sums = torch.stack([found.sum() for found in over_pairs(K, compare)])
    return sums.sum() / (K * (K - 1) / 2)


def moments_over_pairs(K: int, compare: Compare) -> PairMoments:
    """The mean and the population standard deviation over all pairs i < j, as in `over_pairs`.

    Each number is computed once: squares have a mean and a spread of their own, which are pooled.

    Returns:
        `PairMoments`; NaN for fewer than two classes. A single pair has no spread: it is 0.

    Example:
        >>> v = torch.tensor([[1.0], [1.0], [2.0]])  # products 1, 2, 2
        >>> tuple(moments_over_pairs(3, lambda i, j: v[i] @ v[j].mT))
        (tensor(1.6667), tensor(0.4714))
    """
    sizes, means, squares = [], [], []
    for found in over_pairs(K, compare):
        sizes.append(found.numel())
        means.append(found.sum() / max(found.numel(), 1))
        squares.append((found - means[-1]).square().sum())
    own, shares = torch.stack(means), torch.tensor(sizes).to(means[0]) / sum(sizes)
    mean = (shares * own).sum()
    within = torch.stack(squares).sum() / sum(sizes)
    return PairMoments(mean, (within + (shares * (own - mean).square()).sum()).sqrt())


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """``||u - v||^2`` for all pairs of vectors, shape ``(a, b)``, exact also for close ones.

    They are computed from products, except where these would lose digits: of vectors that are
    closer to one another than to the origin by far, the differences are taken.

    Args:
        first: Vectors u, about a common centre, shape ``(a, d)``.
        second: Vectors v, shape ``(b, d)``.

    Example:
        >>> squared_distances(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0], [3.0, 1e-9]]))
        tensor([[2.5000e+01, 1.0000e-18]])
    """
    norms = first.square().sum(1)[:, None] + second.square().sum(1)
    squares = torch.addmm(norms, first, second.mT, alpha=-2)
    i, j = (squares < _CLOSE * norms).nonzero(as_tuple=True)
    at_once = max(_DIFFERENCES // first.shape[1], 1)
    parts = zip(torch.split(i, at_once), torch.split(j, at_once), strict=True)
    for own, other in parts:
        squares[own, other] = (first[own] - second[other]).square().sum(1)
    return squares
