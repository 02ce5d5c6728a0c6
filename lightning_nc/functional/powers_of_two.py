"""Scaling by powers of two, so that squares of very large or small numbers fit into float64.

A power of two changes the exponent alone: nothing is rounded. A quantity that does not depend on
the scale of its vectors is computed from scaled ones; one that has units is scaled back.
"""

import torch
from torch import Tensor

# Between 2**-160 and 2**160, fourth powers are far from the limits of float64, and nothing is
# scaled. All numbers of float32 are in between.
_ORDINARY = 160


def scale_of(vectors: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """The largest power of two within the largest number; 1 for numbers of ordinary size.

    Args:
        vectors: Numbers of any dtype, at least one.
        dim: Axes to reduce, which are kept with size 1; None for a scalar of all numbers.

    Returns:
        Powers of two, float64; 1 as well for zeros and for numbers that are not finite.

    Example:
        >>> x = torch.tensor([3.0, -5.0], dtype=torch.float64)
        >>> scale_of(x), scale_of(x * 2.0**300) / 2.0**300
        (tensor(1., dtype=torch.float64), tensor(4., dtype=torch.float64))
    """
    x = vectors.detach() if vectors.is_floating_point() else vectors.double()
    largest = torch.linalg.vector_norm(x, torch.inf, dim, keepdim=dim is not None).double()
    power = largest / (2 * largest.frexp().mantissa)  # exact: the quotient is a power of two
    extraordinary = (power < 2.0**-_ORDINARY) | (power > 2.0**_ORDINARY)
    return torch.where(extraordinary, power, 1)


def scaled(vectors: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """The vectors in units of their `scale_of`, in float64; all in one unit if ``dim`` is None.

    Then float64 vectors of ordinary size are not copied.
    """
    if dim is None:
        return in_units_of(float(scale_of(vectors)), vectors).double()
    return vectors.double() / scale_of(vectors, dim)


def in_units_of(scale: float, features: Tensor) -> Tensor:
    """Features in units of a power of two; features of ordinary size are not copied."""
    return features if scale == 1 else features.double() / scale
