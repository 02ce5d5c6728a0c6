"""CDNV: the variance of two classes relative to the distance between them."""

from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ClassGeometry,
    class_geometry,
    undefined_without_signal,
)
from lightning_nc.functional.class_pairs import mean_over_pairs, squared_distances
from lightning_nc.functional.cosines import centred


def class_distance_normalized_variance(features: Tensor, labels: Tensor) -> Tensor:
    r"""CDNV: the variance of two classes relative to the squared distance of their means; ideal 0.

    .. math:: \operatorname{mean}_{i<j} \frac{v_i + v_j}{2 \lVert \mu_i - \mu_j \rVert^2},
        \quad v_k = \operatorname{mean}_{i \in k} \lVert h_i - \mu_k \rVert^2

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.

    Returns:
        A float64 scalar >= 0, dimensionless. It is infinite if two means coincide, and NaN if
        those two classes also have zero variance or, with a warning, if all means coincide.

    Raises:
        TypeError: If features are not floating point, or labels are not integers.
        ValueError: If shapes do not match, features are not finite, or a class has no samples.

    Example:
        Variances 1 and 1, squared distance 16:

        >>> import torch
        >>> features = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]])
        >>> class_distance_normalized_variance(features, torch.tensor([0, 0, 1, 1]))
        tensor(0.0625, dtype=torch.float64)

    Source:
        Galanti, György & Hutter (2021), "On the role of neural collapse in transfer learning",
        ICLR 2022.
    """
    return class_distance_normalized_variance_of(class_geometry(features, labels))


def class_distance_normalized_variance_of(geometry: ClassGeometry) -> Tensor:
    """Return `class_distance_normalized_variance` from the class geometry of a layer."""
    v, M = geometry.squares / geometry.counts, centred(geometry.means)

    def of_pairs(i: slice, j: slice) -> Tensor:
        return (v[i, None] + v[j]) / (2 * squared_distances(M[i], M[j]))

    cdnv = mean_over_pairs(len(M), of_pairs)
    return undefined_without_signal(cdnv, geometry.rank)
