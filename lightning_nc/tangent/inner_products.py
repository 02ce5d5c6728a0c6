"""Inner products of gradients: products in the network's precision, long sums in float64."""

import torch
from torch import Tensor

_TERMS = 2**16  # added up before the sum goes on in float64


def exact(tensor: Tensor) -> Tensor:
    """In float64, on the CPU where the device has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def gram(left: Tensor, right: Tensor) -> Tensor:
    """All inner products of rows, shape ``(m, m')``, float64."""
    parts = zip(torch.split(left, _TERMS, 1), torch.split(right, _TERMS, 1), strict=True)
    products = [exact(widened(a) @ widened(b).mT) for a, b in parts]
    return torch.stack(products).sum(0)


def widened(tensor: Tensor) -> Tensor:
    """In float32 what is of half precision, which would overflow or round in sums."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
