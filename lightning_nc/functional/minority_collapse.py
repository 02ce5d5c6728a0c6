"""Minority collapse: whether the classifier tells minority classes apart."""

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.cosines import centred as about_their_mean
from lightning_nc.functional.input_checks import check_vectors

# a class that is as frequent as the largest falls this many standard deviations behind it by chance
# less than once in a thousand epochs, also among 1000 classes, whose largest is one of many
_BY_CHANCE = 6.0
_LEAST_GAP = 1.5  # as a factor between two classes


def minority_classes(class_counts: Tensor, at_random: bool = False) -> Tensor:
    r"""The minority classes by a rule on the class counts alone.

    The minority classes are those with

    .. math:: n_k \le b \quad \text{and} \quad 1.5 \, n_k \le \max_j n_j

    - One clear gap: b is the count below the largest gap in the log counts, if this gap is a factor
      of 1.5 or more, is twice as large as any other (its factor is at least the square of any other
      factor), and leaves two or more classes below it.
    - Otherwise, as in long tails, b is the count of the last of the rarest third of the classes,
      rounded down, but of two or more. Classes tied with it are minority classes, too.

    Hence classes of equal counts are treated alike, a class within a factor of 1.5 of the largest
    is never a minority class, and balanced counts have none. A minority of one class remains if no
    second class is that much smaller than the largest, which is always so for K = 2. A class
    without samples lies below all others by an infinite gap.

    Counts of samples that are drawn at random, such as with weights that balance the classes,
    differ by chance. Of these a class is no minority class unless

    .. math:: \max_j n_j - n_k \ge 6 \sqrt{\max_j n_j + n_k}

    Args:
        class_counts: Training samples per class n_k, shape ``(K,)``.
        at_random: Whether the samples were drawn at random, with replacement.

    Returns:
        A bool tensor, shape ``(K,)``: True for minority classes; all False if there are none.

    Raises:
        ValueError: If there are no counts, or counts are negative or all zero.

    Example:
        The gap between 12 and 90 is clear. The gaps of a long tail are not, so that two of its six
        classes are the minority. Of 100 and 90 neither is rare:

        >>> minority_classes(torch.tensor([100, 10, 90, 12]))
        tensor([False,  True, False,  True])
        >>> minority_classes(torch.tensor([200, 150, 100, 70, 40, 20]))
        tensor([False, False, False, False,  True,  True])
        >>> minority_classes(torch.tensor([100, 90]))
        tensor([False, False])
    """
    if len(class_counts) == 0 or bool((class_counts < 0).any()) or not bool(class_counts.any()):
        raise ValueError(
            "The numbers of training samples per class must be non-negative and not all zero, "
            f"got {class_counts.tolist()}."
        )
    n = class_counts.to(torch.float64)
    rare = (n <= _largest_minority_count(n)) & (_LEAST_GAP * n <= n.max())
    chance = _BY_CHANCE * (n.max() + n).sqrt() if at_random else torch.zeros_like(n)
    return rare & (n.max() - n >= chance)


def _largest_minority_count(n: Tensor) -> Tensor:
    """The count b: below one clear gap, or else of the last class of the rarest third."""
    K, ordered = len(n), n.sort().values
    if K > 2:
        gaps = ordered.log().diff().nan_to_num(0)  # no gap between two classes without samples
        (largest, second), (place, _) = gaps.topk(2)
        clear = largest >= 2 * second * (1 - 1e-12)  # gaps are equal up to rounding
        if place > 0 and clear and ordered[place + 1] >= _LEAST_GAP * ordered[place]:
            return ordered[place]
    return ordered[min(max(K // 3, 2), K) - 1]


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

    Raises:
        ValueError: If there is not one truth value for each count, as if classes are listed.

    Example:
        >>> counts, minority = torch.tensor([30, 10, 2]), torch.tensor([False, False, True])
        >>> imbalance_ratio(counts, minority)
        tensor(10., dtype=torch.float64)

    Source:
        Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
        collapse in imbalanced training", PNAS 118(43).
    """
    if minority.dtype != torch.bool or minority.shape != class_counts.shape:
        raise ValueError(
            f"Need True or False for each of {len(class_counts)} classes, as from "
            f"minority_classes(class_counts), got {minority.tolist()}."
        )
    counts = class_counts.double()
    return counts[~minority].mean() / counts[minority].mean()


def classifier_energy(weight: Tensor) -> Tensor:
    r"""The mean squared norm of the classifier rows: E_W of the Layer-Peeled Model.

    .. math:: E_W = \frac1K \sum_k \lVert w_k \rVert^2

    Args:
        weight: Classifier rows W, shape ``(K, d)``.

    Returns:
        A float64 scalar >= 0, in squared units of W.

    Raises:
        ValueError: If the shape is another.

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
