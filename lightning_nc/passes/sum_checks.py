"""Checks of sums and features before numbers are computed from them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.network.points import Point
from lightning_nc.wording import listed


def where(flags: Mapping[Point, Tensor]) -> list[Point]:
    """The points whose flag, a scalar, is true; the device is waited for once for all of them."""
    found = torch.stack([*flags.values()]).tolist() if flags else []
    return [point for point, flag in zip(flags, found, strict=True) if flag]


def not_finite(sums: Mapping[Point, Sequence[Tensor]]) -> list[Point]:
    """The points at which sums of features are not finite, as those of finite features are."""
    # the largest of all numbers, for which no second array is formed
    largest = {
        point: torch.stack([torch.linalg.vector_norm(each, torch.inf) for each in of_point]).max()
        for point, of_point in sums.items()
        if of_point
    }
    return where({point: ~number.isfinite() for point, number in largest.items()})


def why_not_finite(points: Sequence[Point]) -> ValueError:
    """The error for points at which features are not finite."""
    return ValueError(
        "Features are not finite (NaN or infinite) at "
        f"{listed(repr(point.name) for point in points)}. The network has diverged, or overflows "
        "in its precision."
    )


def has_changed(geometry: ClassGeometry, residuals: Tensor) -> Tensor:
    """Whether the features of a layer changed between the sweeps, a scalar.

    Residuals about the class means sum to zero unless they did. A shift delta_k of the class means
    adds ``sum_k n_k ||delta_k||^2`` to the squared residuals; the tolerance of 1e-8 of these is
    above any rounding error and below any digit promised.

    Args:
        geometry: The class geometry of the layer.
        residuals: Sum of the residuals of each class, shape ``(K, d)``.
    """
    n = geometry.counts.sum()
    squares = torch.linalg.vector_norm(residuals, dim=1).square()
    shift = (squares / geometry.counts).sum() / n
    spread = geometry.squares.sum() / n
    rounding = (1e-12 * torch.linalg.vector_norm(geometry.means, dim=1).max()) ** 2
    return (shift > 1e-8 * spread) & (shift > rounding)


def why_changed(point: Point) -> RuntimeError:
    """The error for a layer whose features changed between the sweeps."""
    return RuntimeError(
        f"Features at '{point.name}' changed between the two sweeps: data or network are random "
        "beyond the seeds that a probe controls. Raise Probe(cache_mb=...) so that the features of "
        "the first sweep are kept, or give data that stay the same when they are read again."
    )
