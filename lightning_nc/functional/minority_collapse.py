"""Minority collapse: whether the classifier tells minority classes apart."""

import math

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.cosines import centred as about_their_mean
from lightning_nc.functional.input_checks import check_vectors


def minority_classes(class_counts: Tensor, least_gap: float = 1.5) -> Tensor:
    """The classes below the largest gap in the logarithm of the class counts.

    Among equal gaps, the one at the lowest counts is used. In a long tail where all gaps are equal,
    any choice is arbitrary.

    Args:
        class_counts: Training samples per class n_k, shape ``(K,)``.
        least_gap: Factor by which neighbouring counts must differ to form a gap.

    Returns:
        A bool tensor, shape ``(K,)``: True for minority classes; all False if there is no gap.

    Raises:
        ValueError: If there are no counts, or counts are negative or all zero.

    Example:
        The largest gap is between 12 and 90:

        >>> minority_classes(torch.tensor([100, 10, 90, 12]))
        tensor([False,  True, False,  True])
    """
    if len(class_counts) == 0 or bool((class_counts < 0).any()) or not bool(class_counts.any()):
        raise ValueError(
            "The numbers of training samples per class must be non-negative and not all zero, "
            f"got {class_counts.tolist()}."
        )
    ordered = class_counts.double().sort().values
    gaps = ordered.log().diff().nan_to_num(0)  # no gap between two classes without samples
    if len(gaps) == 0 or float(gaps.max()) < math.log(least_gap) - 1e-12:
        return torch.zeros_like(class_counts, dtype=torch.bool)
    # the first of the gaps that are equal up to rounding
    largest = (gaps >= gaps.max() * (1 - 1e-12)).nonzero()[0, 0]
    return class_counts.double() <= ordered[largest]


def imbalance_ratio(class_counts: Tensor, minority: Tensor) -> Tensor:
    r"""The ratio of training samples per majority class to those per minority class; 1 if balanced.

    .. math:: R = \bar n_A / \bar n_B

    where the bars denote the mean counts of majority classes A and minority classes B.

    Args:
        class_counts: Training samples per class n_k, shape ``(K,)``.
        minority: True for minority classes, shape ``(K,)``.

    Returns:
        A float64 scalar, dimensionless; infinite if minority classes have no samples, NaN if either
        group is empty.

    Example:
        >>> counts, minority = torch.tensor([30, 10, 2]), torch.tensor([False, False, True])
        >>> imbalance_ratio(counts, minority)
        tensor(10., dtype=torch.float64)

    Source:
        Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
        collapse in imbalanced training", PNAS 118(43).
    """
    counts = class_counts.double()
    return counts[~minority].mean() / counts[minority].mean()


def classifier_energy(weight: Tensor) -> Tensor:
    r"""The mean squared norm of the classifier rows: E_W of the Layer-Peeled Model.

    .. math:: E_W = \frac1K \sum_k \lVert w_k \rVert^2

    Args:
        weight: Classifier rows W, shape ``(K, d)``.

    Returns:
        A float64 scalar >= 0, in squared units of W.

    Example:
        >>> classifier_energy(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
        tensor(13., dtype=torch.float64)

    Source:
        Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
        collapse in imbalanced training", PNAS 118(43).
    """
    check_vectors(weight)
    return weight.double().square().sum(1).mean()


def feature_energy_of(geometry: ClassGeometry, centred: bool = False) -> Tensor:
    r"""The mean squared norm of last-layer features: E_H of the Layer-Peeled Model.

    .. math:: E_H = \frac1K \sum_k \frac{1}{n_k} \sum_i \lVert h_{k,i} \rVert^2
        = \frac1K \sum_k \left(\lVert \mu_k \rVert^2
        + \frac{1}{n_k} \sum_i \lVert h_{k,i} - \mu_k \rVert^2 \right)

    Args:
        geometry: Class geometry of the last-layer features.
        centred: Whether to centre the features on mu_G, the mean of the class means.

    Returns:
        A float64 scalar >= 0, in squared units of the features.

    Example:
        >>> from lightning_nc.functional import class_geometry
        >>> features = torch.tensor([[4.0], [6.0], [1.0], [1.0]])
        >>> geometry = class_geometry(features, torch.tensor([0, 0, 1, 1]))
        >>> feature_energy_of(geometry)  # (16 + 36) / 2 and 1
        tensor(13.5000, dtype=torch.float64)
        >>> feature_energy_of(geometry, centred=True)  # mu_G = 3: (1 + 9) / 2 and 4
        tensor(4.5000, dtype=torch.float64)

    Source:
        Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
        collapse in imbalanced training", PNAS 118(43).
    """
    means = about_their_mean(geometry.means) if centred else geometry.means
    energy = (means.square().sum(1) + geometry.squares / geometry.counts).mean()
    return energy * geometry.scale * geometry.scale
