"""CDNV: the variance of two classes relative to the distance between them."""

from collections.abc import Callable

from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ClassGeometry,
    class_geometry,
    undefined_without_signal,
)
from lightning_nc.functional.class_pairs import MomentsOverPairs, PairSquare, compare_pairs
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
    ratios = MomentsOverPairs(variance_ratios(geometry))
    compare_pairs(centred(geometry.means), [ratios])
    return undefined_without_signal(ratios.mean, geometry.rank)


def variance_ratios(geometry: ClassGeometry) -> Callable[[PairSquare], Tensor]:
    """The ratio of which CDNV is the mean, for the pairs of a square, shape ``(a, b)``."""
    v = geometry.squares / geometry.counts / 2

    def of(square: PairSquare) -> Tensor:
        i, j = square.first.places, square.second.places
        return (v[i, None] + v[j]).div_(square.squared_distances)

    return of
