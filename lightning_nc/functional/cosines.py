"""Class vectors about their mean, and cosines between them: all pairs, or pairs of groups."""

from collections.abc import Sequence

import torch
from torch import Tensor


def centred(means: Tensor) -> Tensor:
    """The rows ``mu_k - mu_G`` about the plain mean of the class means, in float64."""
    M = means.double()
    M = M - M.mean(0)
    return M - M.mean(0)  # the first mean is rounded; what is left of it goes here


def cosines(vectors: Tensor) -> Tensor:
    """Cosines between all vectors, shape ``(K, K)``; NaN where one is zero."""
    units = _units(vectors)
    return units @ units.mT


def pair_cosines(vectors: Tensor) -> Tensor:
    """Cosines of all pairs i < j, shape ``(K (K - 1) / 2,)``."""
    i, j = torch.triu_indices(len(vectors), len(vectors), 1, device=vectors.device)
    return cosines(vectors)[i, j]


def group_cosine(
    vectors: Tensor, members: Sequence[int] | Tensor, others: Sequence[int] | Tensor | None = None
) -> Tensor:
    r"""Mean cosine between the vectors of a group of classes; -1/(K-1) on a simplex, 1 if merged.

    .. math:: \operatorname{mean}_{i<j} \cos(w_i, w_j), \quad i, j \in \text{members}

    or, with a second group, over pairs of a member of each.

    Args:
        vectors: Classifier rows or class means, taken as given, shape ``(K, d)``.
        members: Indices of the classes of the group.
        others: Indices of the classes of a second group, disjoint from the first.

    Returns:
        A float64 scalar in [-1, 1]; NaN without a pair, or if a vector of the pairs is zero.

    Raises:
        IndexError: If an index is out of range.

    Example:
        Rows at 0, 60 and 90 degrees; the first two have cosine 1/2, and with the third 0 and
        sqrt(3)/2:

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
        return pair_cosines(first).mean()
    second = _chosen(vectors, others)
    return (_units(first) @ _units(second).mT).mean()


def _chosen(vectors: Tensor, classes: Sequence[int] | Tensor) -> Tensor:
    indices = torch.as_tensor(classes, device=vectors.device)
    return vectors[indices if len(indices) else indices.long()]


def _units(vectors: Tensor) -> Tensor:
    v = vectors.double()
    return v / torch.linalg.vector_norm(v, dim=1, keepdim=True)
