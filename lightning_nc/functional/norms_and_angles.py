"""NC2: class vectors have equal norms, and angles that are equal and as wide as possible."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry, undefined_without_signal
from lightning_nc.functional.class_pairs import (
    MomentsOverPairs,
    PairSquare,
    compare_pairs,
    parts_of_classes,
)
from lightning_nc.functional.cosines import unit_vectors
from lightning_nc.functional.input_checks import check_vectors
from lightning_nc.functional.powers_of_two import scaled

_NO_LOSS = 1e-3  # a variance that is a larger share of the mean square has kept its digits


def equinorm(vectors: Tensor) -> Tensor:
    r"""NC2: the relative spread of the norms of class vectors; ideal 0.

    .. math:: \operatorname{std}_k \lVert m_k \rVert / \operatorname{mean}_k \lVert m_k \rVert

    with the unbiased standard deviation over classes.

    Args:
        vectors: Centred class means or classifier rows, used as given, shape ``(K, d)``.

    Returns:
        A float64 scalar >= 0, dimensionless; NaN if all vectors are zero, or for fewer than two.

    Raises:
        ValueError: If the shape is another.

    Example:
        Norms 3 and 5: standard deviation sqrt(2), mean 4.

        >>> equinorm(torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
        tensor(0.3536, dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    check_vectors(vectors)
    norms = torch.linalg.vector_norm(scaled(vectors), dim=1)
    deviations = norms - norms.mean()
    return (deviations.square().sum() / (len(norms) - 1)).sqrt() / norms.mean()


def equiangularity(vectors: Tensor) -> Tensor:
    r"""NC2: the spread of the cosines between class vectors; ideal 0.

    .. math:: \operatorname{std}_{i<j} \cos(m_i, m_j)

    with the population standard deviation over pairs.

    Args:
        vectors: Centred class means or classifier rows, used as given, shape ``(K, d)``.

    Returns:
        A float64 scalar in [0, 1]; NaN if a vector is zero, or for fewer than three vectors, since
        a single angle has no spread.

    Raises:
        ValueError: If the shape is another.

    Example:
        Cosines 0, 0 and -1 over the three pairs: standard deviation sqrt(2) / 3.

        >>> equiangularity(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        tensor(0.4714, dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    check_vectors(vectors)
    found = spread_without_pairs(vectors)
    if found is None:
        cosines = MomentsOverPairs(lambda square: square.cosines)
        compare_pairs(vectors, [cosines])
        found = cosines.deviation
    return found


def spread_without_pairs(vectors: Tensor) -> Tensor | None:
    """Return `equiangularity` if it is known without all cosines, from products of columns.

    So it is where vectors are many, for their dimensions, since cosines are far from 0 then.
    """
    K, d = vectors.shape
    if K <= 2:
        return torch.full((), torch.nan, dtype=torch.float64, device=vectors.device)
    if 2 * d >= K:
        return None
    total = torch.zeros(d, dtype=torch.float64, device=vectors.device)
    products = total.new_zeros(d, d)
    for part in parts_of_classes(K):
        u = unit_vectors(vectors[part])
        total += u.sum(0)
        products.addmm_(u.mT, u)
    pairs = K * (K - 1)
    mean = (total.square().sum() - K) / pairs
    square = (torch.linalg.norm(products).square() - K) / pairs
    kept_its_digits = bool(square - mean.square() > _NO_LOSS * square)
    return (square - mean.square()).sqrt() if kept_its_digits else None


def maximal_angle(vectors: Tensor) -> Tensor:
    r"""NC2: the mean deviation of the cosines from -1/(K-1), the value of a simplex; ideal 0.

    .. math:: \operatorname{mean}_{i<j} \lvert \cos(m_i, m_j) + 1/(K-1) \rvert

    Args:
        vectors: Centred class means or classifier rows, used as given, shape ``(K, d)``.

    Returns:
        A float64 scalar in [0, 1 + 1/(K-1)]; NaN if a vector is zero, or for fewer than two.

    Raises:
        ValueError: If the shape is another.

    Example:
        Cosines 0, 0 and -1; each deviates from -1/2 by 1/2:

        >>> maximal_angle(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        tensor(0.5000, dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    check_vectors(vectors)
    excess = MomentsOverPairs(beyond_widest_angle(len(vectors)))
    compare_pairs(vectors, [excess])
    return excess.mean


def beyond_widest_angle(K: int) -> Callable[[PairSquare], Tensor]:
    """How far the cosines between K vectors are from -1/(K-1), shape ``(a, b)``."""
    widest = -1 / max(K - 1, 1)
    return lambda square: (square.cosines - widest).abs_()


def undefined_without_angles(value: Tensor, geometry: ClassGeometry) -> Tensor:
    """Return an NC2 quantity of centred class means, or NaN where it says nothing.

    Two centred means are always opposite, so the value is NaN for K = 2. It is also NaN if all
    means coincide up to rounding.

    Args:
        value: `equinorm`, `equiangularity`, `maximal_angle` or `simplex_etf_error` of the means.
        geometry: Class geometry of the layer.
    """
    rank = geometry.rank
    signal = rank if len(geometry.means) > 2 else torch.zeros_like(rank)
    return undefined_without_signal(value, signal)
