"""Centred class vectors, and the cosines between class vectors: of all pairs, or of groups."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_nc.functional.class_pairs import PairSquare, compare_pairs
from lightning_nc.functional.input_checks import check_vectors
from lightning_nc.functional.powers_of_two import scale_of, scaled


def centred(means: Tensor) -> Tensor:
    """The rows ``mu_k - mu_G``, centred on the plain mean of the class means, in float64."""
    check_vectors(means)
    M = means.double()
    M = M - M.mean(0)
    M -= M.mean(0)  # removes the rounding error of the first mean
    return M


def norms(vectors: Tensor) -> Tensor:
    """The norms of vectors, shape ``(K,)``, in float64."""
    unit = scale_of(vectors)
    return unit * torch.linalg.vector_norm(vectors.double() / unit, dim=1)


def cosines(vectors: Tensor) -> Tensor:
    """The cosines between all vectors, shape ``(K, K)``; NaN where one of the two is zero."""
    units = unit_vectors(vectors)
    return units @ units.mT


class CosineHistogram:
    """How many pairs i < j have cosines in each of so many equal bins from -1 to 1.

    It is a `Comparison`. Pairs with a zero vector are left out.

    Args:
        bins: Number of bins.
    """

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._counts = torch.zeros(bins + 1, dtype=torch.int64)  # in the last one what is left out

    def add(self, square: PairSquare) -> None:
        """Take some pairs."""
        place = square.each_once(square.cosines).add(1).mul_(self._bins / 2).flatten()
        place = place.clamp_(0, self._bins - 1).nan_to_num_(self._bins).long()
        self._counts = self._counts.to(place.device)
        self._counts += place.bincount(minlength=self._bins + 1)

    @property
    def counts(self) -> Tensor:
        """The number of pairs, float64, shape ``(bins,)``."""
        return self._counts[: self._bins].double()


def cosine_histogram(vectors: Tensor, bins: int) -> Tensor:
    """How many pairs i < j have cosines in each of so many equal bins from -1 to 1.

    Args:
        vectors: Class vectors, shape ``(K, d)``; pairs with a zero vector are left out.
        bins: Number of bins.

    Returns:
        Counts, float64, shape ``(bins,)``.

    Example:
        Cosines 0, 0 and -1:

        >>> cosine_histogram(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), 3)
        tensor([1., 2., 0.], dtype=torch.float64)
    """
    check_vectors(vectors)
    histogram = CosineHistogram(bins)
    compare_pairs(vectors, [histogram])
    return histogram.counts


def mean_over_cosines(vectors: Tensor) -> Tensor:
    """The mean over all pairs i < j of their cosine, of which none is formed.

    The sum of all unit vectors has the squared length K + 2 (sum of the cosines).
    """
    units = unit_vectors(vectors)
    K = len(units)
    if K < 2:
        return units.new_tensor(torch.nan)
    return (units.sum(0).square().sum() - units.square().sum()) / (K * (K - 1))


def group_cosine(
    vectors: Tensor, members: Sequence[int] | Tensor, others: Sequence[int] | Tensor | None = None
) -> Tensor:
    r"""The mean cosine within a group of class vectors; -1/(K-1) for a simplex, 1 if merged.

    .. math:: \operatorname{mean}_{i<j} \cos(w_i, w_j), \quad i, j \in \text{members}

    or, with a second group, the mean over all pairs of one member from each group.

    Args:
        vectors: Classifier rows or class means, used as given (not centred), shape ``(K, d)``.
        members: Indices of the classes of the group.
        others: Indices of the classes of a second group, disjoint from the first.

    Returns:
        A float64 scalar in [-1, 1]; NaN if there is no pair, or if a vector in a pair is zero.

    Raises:
        IndexError: If an index is out of range.

    Example:
        Rows at 0, 60 and 90 degrees. The first two have cosine 1/2; their cosines with the third
        are 0 and sqrt(3)/2:

        >>> rows = torch.tensor([[2.0, 0.0], [0.5, 0.75**0.5], [0.0, 3.0]])
        >>> group_cosine(rows, [0, 1])
        tensor(0.5000, dtype=torch.float64)
        >>> group_cosine(rows, [0, 1], [2])
        tensor(0.4330, dtype=torch.float64)

    Source:
        Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
        collapse in imbalanced training", PNAS 118(43).
    """
    first = _chosen(vectors, members)
    if others is None:
        return mean_over_cosines(first).clamp(-1, 1)
    second = _chosen(vectors, others)
    return (unit_vectors(first).mean(0) @ unit_vectors(second).mean(0)).clamp(-1, 1)


def _chosen(vectors: Tensor, classes: Sequence[int] | Tensor) -> Tensor:
    indices = torch.as_tensor(classes, device=vectors.device)
    return vectors[indices if len(indices) else indices.long()]


def unit_vectors(vectors: Tensor) -> Tensor:
    """The vectors scaled to norm 1, in float64; NaN for a zero vector."""
    check_vectors(vectors)
    v = scaled(vectors, 1)
    return v.div_(torch.linalg.vector_norm(v, dim=1, keepdim=True))
