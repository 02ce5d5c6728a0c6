"""GNC2 and UNC3: neural collapse of more classes than a simplex has room for, K > d + 1."""

import torch
from torch import Tensor

from lightning_nc.functional.class_pairs import (
    MomentsOverPairs,
    PairSquare,
    compare_pairs,
    parts_of_classes,
)
from lightning_nc.functional.cosines import centred, unit_vectors
from lightning_nc.functional.input_checks import check_vectors, require_same_shape

_ROUNDING = 8 * torch.finfo(torch.float64).eps


def hyperspherical_uniformity(vectors: Tensor) -> Tensor:
    r"""GNC2: the spread of the logarithms of distances between unit class vectors; ideal 0.

    .. math:: \operatorname{std}_{i<j} \ln \lVert \hat m_i - \hat m_j \rVert, \quad
        \hat m_k = m_k / \lVert m_k \rVert

    with the population standard deviation over pairs. A simplex has 0. Where there is none
    (K > d + 1), the vectors that are most evenly spread over the sphere have a small value.

    Args:
        vectors: Centred class means or classifier rows, used as given, shape ``(K, d)``.

    Returns:
        A float64 scalar >= 0, dimensionless; NaN if a vector is zero, if two have the same
        direction, or for fewer than three, since a single distance has no spread.

    Raises:
        ValueError: If the shape is another.

    Example:
        Distances sqrt(2), sqrt(2) and 2: the logarithms are ln(2)/2, ln(2)/2 and ln(2), with
        standard deviation sqrt(2)/6 ln(2).

        >>> import torch
        >>> hyperspherical_uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        tensor(0.1634, dtype=torch.float64)

    Source:
        Wu & Papyan (2024), "Linguistic collapse: neural collapse in (large) language models",
        NeurIPS 37; the kernel is that of Liu, Yu, Weller & Schoelkopf (2023), "Generalizing and
        decoupling neural collapse via hyperspherical uniformity gap", ICLR.
    """
    check_vectors(vectors)
    logarithms = MomentsOverPairs(log_distances)
    compare_pairs(vectors, [logarithms])
    return uniformity_of(logarithms, len(vectors))


def log_distances(square: PairSquare) -> Tensor:
    """The logarithms of the distances between unit vectors, shape ``(a, b)``."""
    squares = square.unit_squared_distances
    # what separates unit vectors of the same direction is the rounding of each of them
    return squares.log().div_(2).masked_fill_(squares < _ROUNDING**2, -torch.inf)


def uniformity_of(logarithms: MomentsOverPairs, K: int) -> Tensor:
    """Return `hyperspherical_uniformity` from the moments of `log_distances` over K vectors."""
    spread = logarithms.deviation
    return spread if K > 2 else torch.full_like(spread, torch.nan)


def uniform_duality(means: Tensor, weight: Tensor) -> Tensor:
    r"""UNC3: the spread over classes of the cosine between classifier row and class mean; ideal 0.

    .. math:: \operatorname{std}_k \cos(w_k, \mu_k - \mu_G)

    with the population standard deviation. Unlike NC3, it is 0 as well where rows and means agree
    to the same degree for all classes.

    Args:
        means: Class means, shape ``(K, d)``; they are centred here.
        weight: Classifier rows W, shape ``(K, d)``.

    Returns:
        A float64 scalar in [0, 1]; NaN if a row is zero or a mean coincides with their centre.

    Raises:
        ValueError: If the shapes differ.

    Example:
        One row is parallel to its mean, the other orthogonal: cosines 1 and 0.

        >>> import torch
        >>> means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> uniform_duality(means, torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        tensor(0.5000, dtype=torch.float64)

    Source:
        Wu & Papyan (2024), "Linguistic collapse: neural collapse in (large) language models",
        NeurIPS 37.
    """
    require_same_shape(means, weight)
    return uniform_duality_of(centred(means), weight)


def uniform_duality_of(M: Tensor, W: Tensor) -> Tensor:
    """Return `uniform_duality` of centred class means and classifier rows."""
    parts = parts_of_classes(len(M))
    cosines = torch.cat([(unit_vectors(M[part]) * unit_vectors(W[part])).sum(1) for part in parts])
    return (cosines - cosines.mean()).square().mean().sqrt()
