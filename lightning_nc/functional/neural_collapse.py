"""NC1 and NC2: features shrink to their class means, and the means to a simplex."""

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ClassGeometry,
    class_geometry,
    undefined_without_signal,
)
from lightning_nc.functional.cosines import pair_cosines


def variability_collapse(features: Tensor, labels: Tensor) -> Tensor:
    r"""NC1: within-class variability against the spread of the class means; ideal 0.

    .. math:: \operatorname{Tr}(\Sigma_W \Sigma_B^+) / K

    with the class-weighted ``Sigma_B = (1/K) sum_k (mu_k - mu_G)(mu_k - mu_G)^T``, mu_G the plain
    mean of the class means, and the sample-weighted ``Sigma_W``. For balanced classes this is
    D / K.

    Args:
        features: Last-layer features ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.

    Returns:
        A float64 scalar >= 0 without unit; NaN, with a warning, if all class means coincide.

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, features are not finite, or a class has no samples.

    Example:
        Class means at +2 and -2, variance 1 within each class, so NC1 = (1 / 2**2) / 2:

        >>> features = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]])
        >>> variability_collapse(features, torch.tensor([0, 0, 1, 1]))
        tensor(0.1250, dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    return variability_collapse_of(class_geometry(features, labels))


def equinorm(vectors: Tensor) -> Tensor:
    r"""NC2: how unequal the norms of class vectors are; ideal 0.

    .. math:: \operatorname{std}_k \lVert m_k \rVert / \operatorname{mean}_k \lVert m_k \rVert

    with the unbiased standard deviation over classes.

    Args:
        vectors: Centred class means, or classifier rows, taken as given, shape ``(K, d)``.

    Returns:
        A float64 scalar >= 0 without unit; NaN if all vectors are zero, or for fewer than two.

    Example:
        Norms 3 and 5: standard deviation sqrt(2), mean 4.

        >>> equinorm(torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
        tensor(0.3536, dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    norms = torch.linalg.vector_norm(vectors.double(), dim=1)
    deviations = norms - norms.mean()
    return (deviations.square().sum() / (len(norms) - 1)).sqrt() / norms.mean()


def equiangularity(vectors: Tensor) -> Tensor:
    r"""NC2: how unequal the angles between class vectors are; ideal 0.

    .. math:: \operatorname{std}_{i<j} \cos(m_i, m_j)

    with the population standard deviation over pairs.

    Args:
        vectors: Centred class means, or classifier rows, taken as given, shape ``(K, d)``.

    Returns:
        A float64 scalar in [0, 1]; NaN if a vector is zero, or for fewer than three vectors: a
        single angle has no spread.

    Example:
        Cosines 0, 0 and -1 over the three pairs: standard deviation sqrt(2) / 3.

        >>> equiangularity(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        tensor(0.4714, dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    cosines = pair_cosines(vectors)
    spread = (cosines - cosines.mean()).square().mean().sqrt()
    return spread if len(cosines) > 1 else torch.full_like(spread, torch.nan)


def maximal_angle(vectors: Tensor) -> Tensor:
    r"""NC2: how far the angles are from the widest that K vectors can all have; ideal 0.

    .. math:: \operatorname{mean}_{i<j} \lvert \cos(m_i, m_j) + 1/(K-1) \rvert

    Args:
        vectors: Centred class means, or classifier rows, taken as given, shape ``(K, d)``.

    Returns:
        A float64 scalar in [0, 1 + 1/(K-1)]; NaN if a vector is zero, or the only one.

    Example:
        Cosines 0, 0 and -1; distances from -1/2 are all 1/2:

        >>> maximal_angle(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        tensor(0.5000, dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    return (pair_cosines(vectors) + 1 / max(len(vectors) - 1, 1)).abs().mean()


def simplex_etf_error(means: Tensor) -> Tensor:
    r"""NC2 in one number: distance of the means' Gram matrix from that of a simplex ETF; ideal 0.

    .. math:: \left\lVert \frac{G}{\lVert G \rVert_F}
        - \frac{I - \mathbf 1 \mathbf 1^\top / K}{\sqrt{K-1}} \right\rVert_F, \quad G = M M^\top

    with rows ``mu_k - mu_G`` of M; the means are centred here.

    Args:
        means: Class means, shape ``(K, d)``.

    Returns:
        A float64 scalar in [0, 2]; NaN if all means coincide. 0 for any two means.

    Example:
        Four corners of a square: G = diag blocks of [[1, -1], [-1, 1]] with norm sqrt(8).

        >>> square = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> simplex_etf_error(square)  # sqrt(2 - 2 * sqrt(2 / 3))
        tensor(0.6058, dtype=torch.float64)

    Source:
        Zhu, Ding, Zhou, Li, You, Sulam & Qu (2021), "A geometric analysis of neural collapse with
        unconstrained features", NeurIPS 34.
    """
    K = len(means)
    M = centred(means)
    G = M @ M.mT
    simplex = torch.eye(K, dtype=G.dtype, device=G.device) - 1 / K
    return torch.linalg.norm(G / torch.linalg.norm(G) - simplex / (K - 1) ** 0.5)


def class_distance_normalized_variance(features: Tensor, labels: Tensor) -> Tensor:
    r"""CDNV: variance of two classes against the squared distance of their means; ideal 0.

    .. math:: \operatorname{mean}_{i<j} \frac{v_i + v_j}{2 \lVert \mu_i - \mu_j \rVert^2},
        \quad v_k = \operatorname{mean}_{i \in k} \lVert h_i - \mu_k \rVert^2

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.

    Returns:
        A float64 scalar >= 0 without unit; infinite if two means coincide, NaN if the variance
        of those classes is zero, too, or, with a warning, if all means coincide.

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, features are not finite, or a class has no samples.

    Example:
        Variances 1 and 1, squared distance 16:

        >>> features = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]])
        >>> class_distance_normalized_variance(features, torch.tensor([0, 0, 1, 1]))
        tensor(0.0625, dtype=torch.float64)

    Source:
        Galanti, György & Hutter (2021), "On the role of neural collapse in transfer learning",
        ICLR 2022.
    """
    return class_distance_normalized_variance_of(class_geometry(features, labels))


def simplex_geometry_of(geometry: ClassGeometry) -> dict[str, Tensor]:
    """The NC2 quantities of class means, by the names they are logged under.

    Two centred means are opposite whatever the network does, so that all four are NaN for K = 2;
    and so they are if all means coincide, up to their rounding errors.
    """
    means = geometry.means
    M = centred(means)
    values = {
        "nc2_equinorm_means": equinorm(M),
        "nc2_equiangularity_means": equiangularity(M),
        "nc2_maximal_angle_means": maximal_angle(M),
        "nc2_etf_error": simplex_etf_error(means),
    }
    shape = geometry.rank if len(means) > 2 else torch.zeros_like(geometry.rank)
    return {name: undefined_without_signal(value, shape) for name, value in values.items()}


def variability_collapse_of(geometry: ClassGeometry) -> Tensor:
    """`variability_collapse` of a layer whose class geometry is known."""
    nc1 = geometry.collapse.sum() / geometry.counts.sum() / len(geometry.counts)
    return undefined_without_signal(nc1, geometry.rank)


def class_distance_normalized_variance_of(geometry: ClassGeometry) -> Tensor:
    """`class_distance_normalized_variance` of a layer whose class geometry is known."""
    v = geometry.squares / geometry.counts
    i, j = torch.triu_indices(len(v), len(v), 1, device=v.device)
    distances = torch.nn.functional.pdist(centred(geometry.means))  # pairs in the order of i, j
    cdnv = ((v[i] + v[j]) / (2 * distances.square())).mean()
    return undefined_without_signal(cdnv, geometry.rank)


def centred(means: Tensor) -> Tensor:
    """The rows ``mu_k - mu_G`` about the plain mean of the class means, in float64."""
    M = means.double()
    M = M - M.mean(0)
    return M - M.mean(0)  # the first mean is rounded; what is left of it goes here
