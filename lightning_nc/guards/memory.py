"""Restore tensors that were resized, given other memory, or written to."""

import torch
from torch import Tensor

from lightning_nc.guards.comparison import dense_parts


def restore_memory(tensor: Tensor, alias: Tensor) -> bool:
    """Give a tensor its memory and shape again, and return whether it no longer had them.

    Args:
        tensor: The tensor, which may have been resized, or given other memory through ``.data``.
        alias: What ``tensor.detach()`` was before.
    """
    moved = _places(tensor) != _places(alias)
    if moved:
        tensor.data = alias
    return moved


def restore_content(tensor: Tensor, content: Tensor) -> None:
    """Give a tensor the content of a copy, in its own memory where that has the right size."""
    with torch.no_grad():
        try:
            tensor.copy_(content)
        except RuntimeError:  # a compressed sparse tensor with another number of values
            tensor.data = content


def _places(x: Tensor) -> list[tuple[int, torch.Size, tuple[int, ...]]]:
    """Where in memory a tensor is, by address, shape and strides of its parts."""
    return [(part.data_ptr(), part.shape, part.stride()) for part in dense_parts(x)]
