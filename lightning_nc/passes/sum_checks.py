"""Checks of sums and features before numbers are computed from them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.classifier import two_row_head
from lightning_nc.network.capture import Head
from lightning_nc.network.points import Point


def classifier_of(head: Head, point: Point, width: int) -> tuple[Tensor, Tensor | None]:
    """The weight and bias of the classifier, if they fit its input as it was pooled or flattened.

    Args:
        head: The head as it was when it ran.
        point: The point at its input.
        width: Feature dimension d of that point.

    Returns:
        Weight, shape ``(K, d)``, and bias, shape ``(K,)``; a one-logit head is read as two rows.

    Raises:
        ValueError: If the head has weights for another number of features.
    """
    if head.weight.shape[1] != width:
        over_positions = (
            ", such as the mean over positions: pool=lightning_nc.masked_mean for sequences, "
            "pool=lambda h: h.mean((2, 3)) for images"
        )
        raise ValueError(
            f"The head '{point.module}' has weights for {head.weight.shape[1]} features, but its "
            f"input has {width} per sample. Give a pool= that returns the features that a weight "
            f"row multiplies{'' if width % head.weight.shape[1] else over_positions}."
        )
    return two_row_head(head.weight, head.bias) if len(head.weight) == 1 else head[:2]


def require_finite(sums: Mapping[Point, Tensor]) -> None:
    """Raise unless the sums of features are finite, as those of finite features are."""
    broken = [point.name for point, sum_ in sums.items() if not bool(sum_.isfinite().all())]
    if broken:
        raise ValueError(
            f"Features are not finite (NaN or infinity) at {', '.join(map(repr, broken[:5]))}. The "
            "network has diverged, or overflows in its precision."
        )


def require_unchanged(point: Point, geometry: ClassGeometry, residuals: Tensor) -> None:
    """Raise if the features of a layer changed between the sweeps.

    Residuals about the class means sum to zero unless they did. A shift delta_k of the class means
    adds ``sum_k n_k ||delta_k||^2`` to the squared residuals; the tolerance of 1e-8 of these is
    above any rounding error and below any digit promised.

    Args:
        point: The layer.
        geometry: Its class geometry.
        residuals: Sum of the residuals of each class, shape ``(K, d)``.

    Raises:
        RuntimeError: If the features changed.
    """
    n = geometry.counts.sum()
    shift = (residuals.square().sum(1) / geometry.counts).sum() / n
    spread = geometry.squares.sum() / n
    rounding = (1e-12 * torch.linalg.vector_norm(geometry.means, dim=1).max()) ** 2
    if bool((shift > 1e-8 * spread) & (shift > rounding)):
        raise RuntimeError(
            f"Features at '{point.name}' changed between the two sweeps: data or network are "
            "random beyond the seeds that a probe controls. Raise Probe(cache_mb=...) so that the "
            "features of the first sweep are kept, or give data that stay the same when they are "
            "read again."
        )
