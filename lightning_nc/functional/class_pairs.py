"""Pairs of class vectors, a square of them at a time: no K x K matrix is formed for many classes.

The products of a square are formed once, and serve all that is computed from its pairs.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import combinations_with_replacement, starmap
from typing import Protocol

import torch
from torch import Tensor

from lightning_nc.functional.powers_of_two import scale_of

_SIDE = 512  # all pairs of up to so many classes are one square
_CLOSE = 1e-4  # a squared distance below this share of the squared norms has lost digits
_DIFFERENCES = 2**22  # components of differences that are held at a time


class ClassBlock:
    """Some class vectors, and their lengths.

    Args:
        places: Their places among all classes.
        vectors: v_k, any floating dtype, shape ``(a, d)``.

    Attributes:
        lengths: ``||v_k||``, float64, shape ``(a,)``.
        inverse: ``1/||v_k||`` in units of `scale_of`; 1 for a zero vector, whose products are 0.
        has_zero: Whether one of them is zero.
    """

    def __init__(self, places: slice, vectors: Tensor) -> None:
        self.places, self._vectors = places, vectors.detach()
        self._unit = scale_of(vectors, 1)
        self._is_ordinary = bool((self._unit == 1).all())
        own = torch.linalg.vector_norm(self.scaled, dim=1)
        self.lengths = self._unit[:, 0] * own
        self._norms = torch.where(own == 0, 1, own)[:, None]
        self.inverse = 1 / self._norms[:, 0]
        self.has_zero = bool((own == 0).any())

    @property
    def vectors(self) -> Tensor:
        """The vectors in float64."""
        return self._vectors.double()

    @property
    def scaled(self) -> Tensor:
        """Each vector in units of its own `scale_of`."""
        return self.vectors if self._is_ordinary else self.vectors / self._unit

    def units(self, places: Tensor) -> Tensor:
        """Some of the vectors, scaled to norm 1."""
        # not times the inverse: in one dimension, this is 1 or -1 and nothing between
        return self.scaled[places] / self._norms[places]


class PairSquare:
    """All pairs of a vector u of some classes and a vector v of others, or of the same.

    Args:
        first: The classes of u, a of them.
        second: The classes of v, b of them.
    """

    def __init__(self, first: ClassBlock, second: ClassBlock) -> None:
        self.first, self.second = first, second
        products = first.scaled @ second.scaled.mT
        self._products = products.mul_(first.inverse[:, None]).mul_(second.inverse)

    @property
    def on_diagonal(self) -> bool:
        """Whether the classes are the same, so that each pair is there twice."""
        return self.first.places == self.second.places

    @cached_property
    def cosines(self) -> Tensor:
        """The cosine of each pair, shape ``(a, b)``; NaN where one of the two is zero."""
        if not (self.first.has_zero or self.second.has_zero):
            return self._products
        undefined = (self.first.lengths == 0)[:, None] | (self.second.lengths == 0)
        return self._products.masked_fill(undefined, torch.nan)

    @cached_property
    def unit_squared_distances(self) -> Tensor:
        """``||u/|u| - v/|v|||^2``, exact also for close ones, shape ``(a, b)``; NaN as above."""
        squares = 2 - 2 * self.cosines
        for i, j in self._close(squares, 2):
            squares[i, j] = (self.first.units(i) - self.second.units(j)).square().sum(1)
        return squares

    @cached_property
    def squared_distances(self) -> Tensor:
        """``||u - v||^2``, exact also for close ones, shape ``(a, b)``."""
        u, v = self.first.lengths[:, None], self.second.lengths
        norms = u.square() + v.square()
        squares = torch.addcmul(norms, self._products * u, v, value=-2)
        for i, j in self._close(squares, norms):
            squares[i, j] = (self.first.vectors[i] - self.second.vectors[j]).square().sum(1)
        return squares

    def _close(self, squares: Tensor, norms: Tensor | float) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs that are far closer to one another than to the origin, some at a time.

        Their squared distances have lost digits. They have almost the same direction, and most
        squares have no such pair.
        """
        if bool(self._largest_product < 1 - 2 * _CLOSE):
            return iter(())
        i, j = (squares < _CLOSE * norms).nonzero(as_tuple=True)
        at_once = max(_DIFFERENCES // self.first.vectors.shape[1], 1)
        return zip(torch.split(i, at_once), torch.split(j, at_once), strict=True)

    @cached_property
    def _largest_product(self) -> Tensor:
        return self._products.amax()

    def each_once(self, values: Tensor) -> Tensor:
        """Numbers of the pairs, shape ``(a, b)``, without mirror images and without i = j."""
        if not self.on_diagonal:
            return values
        i, j = torch.triu_indices(len(values), len(values), 1, device=values.device)
        return values[i, j]


class Comparison(Protocol):
    """What is computed from all pairs i < j."""

    def add(self, square: PairSquare) -> None:
        """Take some pairs; of those on the diagonal, `PairSquare.each_once` drops the mirrored."""


class MomentsOverPairs:
    """The mean and the population standard deviation, over all pairs i < j, of a number.

    Each number is computed once: squares have a mean and a spread of their own, which are pooled.
    Both moments are NaN for fewer than two classes. A single pair has no spread: it is 0.

    Args:
        of: The number for each pair of a square, shape ``(a, b)``.

    Example:
        >>> v = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
        >>> products = MomentsOverPairs(lambda square: square.cosines)
        >>> compare_pairs(v, [products])
        >>> products.mean, products.deviation
        (tensor(-0.3333, dtype=torch.float64), tensor(0.4714, dtype=torch.float64))
    """

    def __init__(self, of: Callable[[PairSquare], Tensor]) -> None:
        self._of, self._size = of, 0
        # changed in place: a number kept of every square would hold its place among the arrays
        # that are freed, and these take new memory then, as much as all pairs together
        self._sum = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros_like(self._sum)

    def add(self, square: PairSquare) -> None:
        """Take some pairs."""
        found = square.each_once(self._of(square))
        before, size = self._size, found.numel()
        self._sum, self._squares = self._sum.to(found.device), self._squares.to(found.device)
        if size == 0:
            return
        total = found.sum()
        mean = total / size
        self._squares += torch.linalg.vector_norm(found - mean).square()
        if before:
            self._squares += (mean - self.mean).square() * (before * size / (before + size))
        self._sum += total
        self._size += size

    @property
    def mean(self) -> Tensor:
        """The mean, a scalar."""
        return self._sum / self._size

    @property
    def deviation(self) -> Tensor:
        """The standard deviation, a scalar."""
        return (self._squares / self._size).sqrt()


def compare_pairs(vectors: Tensor, comparisons: Sequence[Comparison]) -> None:
    """Show all pairs of class vectors, shape ``(K, d)``, to each of some comparisons, in one go."""
    for square in squares_of_vectors(vectors):
        for each in comparisons:
            each.add(square)


def squares_of_vectors(vectors: Tensor) -> Iterator[PairSquare]:
    """Return squares that cover all pairs i <= j of class vectors, shape ``(K, d)``."""
    blocks = [ClassBlock(places, vectors[places]) for places in parts_of_classes(len(vectors))]
    return starmap(PairSquare, combinations_with_replacement(blocks, 2))


def squares_of_pairs(K: int) -> list[tuple[slice, slice]]:
    """Rows and columns of squares that cover all pairs i <= j of K classes, each pair once."""
    return [*combinations_with_replacement(parts_of_classes(K), 2)]


def parts_of_classes(K: int) -> list[slice]:
    """Slices of K classes, which are compared with one another."""
    return [slice(start, min(start + _SIDE, K)) for start in range(0, max(K, 1), _SIDE)]
