"""What sums and features must be before numbers are read off them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.classifier import two_row_head
from lightning_nc.network.capture import Head
from lightning_nc.network.points import Point


def classifier_of(head: Head, point: Point, width: int) -> tuple[Tensor, Tensor | None]:
    """The classifier's rows and biases, if they fit its input as it was pooled or flattened."""
    if head.weight.shape[1] != width:
        raise ValueError(
            f"The head '{point.module}' has weights for {head.weight.shape[1]} features, and its "
            f"input {width} per sample: give a pool= that makes of it what a row is multiplied "
            "with, such as the mean over the places of an image, pool=lambda h: h.mean((2, 3))."
        )
    return two_row_head(head.weight, head.bias) if len(head.weight) == 1 else head[:2]


def require_finite(sums: Mapping[Point, Tensor]) -> None:
    """Raise unless the sums of features are finite, which they are if all features are."""
    broken = [point.name for point, sum_ in sums.items() if not bool(sum_.isfinite().all())]
    if broken:
        raise ValueError(
            f"Features are not finite (NaN or infinity) at {', '.join(map(repr, broken[:5]))}; the "
            "network has diverged, or overflows in its precision."
        )


def require_unchanged(point: Point, geometry: ClassGeometry, residuals: Tensor) -> None:
    """Residuals about the means sum to zero, unless features changed between the sweeps.

    A shift delta_k of the class means between the sweeps adds ``sum_k n_k ||delta_k||^2`` to the
    squared residuals; 1e-8 of them is more than any rounding, less than any digit promised.
    """
    n = geometry.counts.sum()
    shift = (residuals.square().sum(1) / geometry.counts).sum() / n
    spread = geometry.squares.sum() / n
    rounding = (1e-12 * torch.linalg.vector_norm(geometry.means, dim=1).max()) ** 2
    if bool((shift > 1e-8 * spread) & (shift > rounding)):
        raise RuntimeError(
            f"Features at '{point.name}' changed between the two sweeps: data or network are "
            "random beyond the seeds that a probe controls. Raise Probe(cache_mb=...) so that "
            "features are kept from the first sweep, or give data that are the same when read "
            "again."
        )
