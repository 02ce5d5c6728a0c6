"""Inner products of gradients: products in the network's precision, long sums in float64."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_TERMS = 2**16  # terms added up before the sum continues in float64


def exact(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on the CPU if the device has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def gram(left: Tensor, right: Tensor) -> Tensor:
    """Return the inner products of all pairs of rows.

    Args:
        left: Shape ``(m, n)``.
        right: Shape ``(m', n)``.

    Returns:
        Shape ``(m, m')``, float64.
    """
    parts = zip(torch.split(left, _TERMS, 1), torch.split(right, _TERMS, 1), strict=True)
    products = [exact(widened(a) @ widened(b).mT) for a, b in parts]
    return torch.stack(products).sum(0)


def gram_of(
    gradients: Callable[[Sequence[Tensor]], Tensor], left: Sequence[Tensor], right: Sequence[Tensor]
) -> Tensor:
    """Return the inner products of gradients, which are formed once if both sides are the same."""
    of_left = gradients(left)
    return gram(of_left, of_left if left is right else gradients(right))


def widened(tensor: Tensor) -> Tensor:
    """Convert half precision to float32, because sums would overflow or round; keep the rest."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
