"""The quantities of pairs of classes together: the products of all pairs are formed once."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_distance import variance_ratios
from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.class_pairs import Comparison, MomentsOverPairs, compare_pairs
from lightning_nc.functional.cosines import CosineHistogram
from lightning_nc.functional.hyperspherical_uniformity import log_distances, uniformity_of
from lightning_nc.functional.norms_and_angles import beyond_widest_angle, spread_without_pairs


class PairQuantities(NamedTuple):
    """What all pairs of class vectors have in common, as the functions of these names say.

    Attributes:
        equiangularity: Spread of the cosines.
        maximal_angle: Deviation of the cosines from the widest angle.
        uniformity: GNC2; NaN for classifier rows.
        cdnv: CDNV; NaN for classifier rows.
        histogram: How many pairs have cosines in each bin; None unless bins are given.
    """

    equiangularity: Tensor
    maximal_angle: Tensor
    uniformity: Tensor
    cdnv: Tensor
    histogram: Tensor | None


def pair_quantities(
    vectors: Tensor, geometry: ClassGeometry | None = None, bins: int | None = None
) -> PairQuantities:
    """Compare all pairs of class vectors in one go.

    Args:
        vectors: Centred class means or classifier rows, shape ``(K, d)``.
        geometry: The geometry whose centred means these are, for GNC2 and CDNV.
        bins: Number of bins of the histogram, if one is wanted.

    Example:
        >>> import torch
        >>> found = pair_quantities(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), bins=2)
        >>> found.maximal_angle, found.histogram  # cosines 0, 0 and -1
        (tensor(0.5000, dtype=torch.float64), tensor([1., 2.], dtype=torch.float64))
    """
    K = len(vectors)
    spread = spread_without_pairs(vectors)
    cosines = MomentsOverPairs(lambda square: square.cosines)
    excess = MomentsOverPairs(beyond_widest_angle(K))
    logarithms = MomentsOverPairs(log_distances)
    ratios = None if geometry is None else MomentsOverPairs(variance_ratios(geometry))
    histogram = None if bins is None else CosineHistogram(bins)
    wanted: list[Comparison | None] = [
        excess,
        cosines if spread is None else None,
        None if ratios is None else logarithms,
        ratios,
        histogram,
    ]
    compare_pairs(vectors, [each for each in wanted if each is not None])
    undefined = excess.mean.new_tensor(torch.nan)
    return PairQuantities(
        cosines.deviation if spread is None else spread,
        excess.mean,
        undefined if ratios is None else uniformity_of(logarithms, K),
        undefined if ratios is None else ratios.mean,
        None if histogram is None else histogram.counts,
    )
