"""NC1 to NC4: features collapse to class means, and these and the classifier form a simplex."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ClassGeometry,
    class_geometry,
    undefined_without_signal,
)
from lightning_nc.functional.class_pairs import (
    MomentsOverPairs,
    PairSquare,
    compare_pairs,
    parts_of,
)
from lightning_nc.functional.class_sums import ClassMembers
from lightning_nc.functional.classifier import classifier_decisions, nearest_class_centers
from lightning_nc.functional.cosines import centred, unit_vectors
from lightning_nc.functional.input_checks import (
    check_features,
    check_vectors,
    require_every_class,
    require_same_shape,
)
from lightning_nc.functional.powers_of_two import in_units_of, scale_of, scaled

_NO_LOSS = 1e-3  # a variance that is a larger share of the mean square has kept its digits


def variability_collapse(features: Tensor, labels: Tensor) -> Tensor:
    r"""NC1: within-class variability relative to the spread of the class means; ideal 0.

    .. math:: \operatorname{Tr}(\Sigma_W \Sigma_B^+) / K

    with the class-weighted ``Sigma_B = (1/K) sum_k (mu_k - mu_G)(mu_k - mu_G)^T``, where mu_G is
    the plain mean of the class means, and the sample-weighted ``Sigma_W``. For balanced classes
    this is D / K.

    Other conventions are in use: the notebook of Papyan, Han & Donoho leaves out the division by K,
    and others centre on the mean of all samples, which differs where classes are imbalanced.

    Args:
        features: Last-layer features ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.

    Returns:
        A float64 scalar >= 0, dimensionless; NaN, with a warning, if all class means coincide.

    Raises:
        TypeError: If features are not floating point, or labels are not integers.
        ValueError: If shapes do not match, features are not finite, or a class has no samples.

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
    for part in parts_of(K):
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


def self_duality(means: Tensor, weight: Tensor) -> Tensor:
    r"""NC3: the squared distance of classifier and class means, each of unit norm; ideal 0.

    .. math:: \left\lVert W / \lVert W \rVert_F - M / \lVert M \rVert_F \right\rVert_F^2

    where M has the rows ``mu_k - mu_G``; the means are centred here, the classifier is used as
    given.

    Args:
        means: Class means, shape ``(K, d)``.
        weight: Classifier rows W, shape ``(K, d)``.

    Returns:
        A float64 scalar in [0, 4]; NaN if all means coincide or W is zero.

    Raises:
        ValueError: If the shapes differ.

    Example:
        The value is 0 for a classifier parallel to the means and 2 for an orthogonal one:

        >>> means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> round(float(self_duality(means, 7 * means)), 12)
        0.0
        >>> round(float(self_duality(means, means.flip(1))), 12)
        2.0

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    require_same_shape(means, weight)
    return self_duality_of(centred(means), weight)


def self_duality_of(M: Tensor, W: Tensor) -> Tensor:
    """Return `self_duality` of centred class means and classifier rows."""
    M, W = scaled(M), scaled(W)
    of_M, of_W = torch.linalg.norm(M), torch.linalg.norm(W)
    differences = (W[part] / of_W - M[part] / of_M for part in parts_of(len(M)))
    return torch.stack([each.square().sum() for each in differences]).sum()


def nearest_class_center_mismatch(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    r"""NC4: the share of samples where classifier and nearest class centre disagree; ideal 0.

    .. math:: \operatorname{mean}_i \left[\arg\max_k (w_k \cdot h_i + b_k)
        \ne \arg\min_k \lVert h_i - \mu_k \rVert\right]

    Args:
        features: Last-layer features ``h_i``, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.
        weight: Classifier rows W, shape ``(K, d)``.
        bias: Classifier bias b, shape ``(K,)``; zero if not given.

    Returns:
        A float64 scalar in [0, 1].

    Raises:
        TypeError: If features are not floating point, or labels are not integers.
        ValueError: If shapes do not match, features are not finite, a weight or bias is NaN, or a
            class has no samples.

    Example:
        The class means are 0 and 4, but the classifier's threshold is 1, so that they disagree on
        a sample at 1.5:

        >>> features = torch.tensor([[0.0], [4.0], [4.0], [0.0]])
        >>> labels = torch.tensor([0, 1, 1, 0])
        >>> weight, bias = torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, -1.0])
        >>> nearest_class_center_mismatch(features, labels, weight, bias)
        tensor(0., dtype=torch.float64)
        >>> features = torch.tensor([[-1.5], [4.0], [4.0], [1.5]])
        >>> nearest_class_center_mismatch(features, labels, weight, bias)
        tensor(0.2500, dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    labels = check_features(features, labels)
    if int(labels.max()) >= len(weight):
        raise ValueError(
            f"Label {int(labels.max())} is out of range: the classifier has {len(weight)} rows."
        )
    for name, numbers in (("weight", weight), ("bias", bias)):
        if numbers is not None and bool(numbers.isnan().any()):
            raise ValueError(f"The {name} must not be NaN: a NaN output decides for no class.")
    decided = classifier_decisions(features, weight, bias)
    features = in_units_of(float(scale_of(features)), features)
    members = ClassMembers(labels, len(weight))
    counts = members.counts
    require_every_class(counts)
    means = members.sums_of_features(features) / counts[:, None]
    return (decided != nearest_class_centers(features, means)).double().mean()


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


def variability_collapse_of(geometry: ClassGeometry) -> Tensor:
    """Return `variability_collapse` from the class geometry of a layer."""
    nc1 = geometry.collapse.sum() / geometry.counts.sum() / len(geometry.counts)
    return undefined_without_signal(nc1, geometry.rank)
