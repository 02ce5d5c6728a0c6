"""NC1, NC3 and NC4: features collapse to class means, and classifier and means agree."""

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ClassGeometry,
    class_geometry,
    undefined_without_signal,
)
from lightning_nc.functional.class_pairs import parts_of_classes
from lightning_nc.functional.class_sums import ClassMembers
from lightning_nc.functional.classifier import NearestCenter, classifier_decisions
from lightning_nc.functional.cosines import centred
from lightning_nc.functional.input_checks import (
    check_features,
    require_every_class,
    require_same_shape,
)
from lightning_nc.functional.powers_of_two import in_units_of, scale_of, scaled


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


def variability_collapse_of(geometry: ClassGeometry) -> Tensor:
    """Return `variability_collapse` from the class geometry of a layer."""
    nc1 = geometry.collapse.sum() / geometry.counts.sum() / len(geometry.counts)
    return undefined_without_signal(nc1, geometry.rank)


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
    differences = (W[part] / of_W - M[part] / of_M for part in parts_of_classes(len(M)))
    return torch.stack([each.square().sum() for each in differences]).sum()


def nearest_class_center_mismatch(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    r"""NC4: the share of samples where classifier and nearest class centre disagree; ideal 0.

    .. math:: \operatorname{mean}_i \left[\arg\max_k (w_k \cdot h_i + b_k)
        \ne \arg\min_k \lVert h_i - \mu_k \rVert\right]

    Of exact ties the first class counts; rounding of the means may decide between distances that
    are equal in theory.

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
    return (decided != NearestCenter(means).of(features)).double().mean()
