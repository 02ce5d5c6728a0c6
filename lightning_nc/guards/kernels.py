"""Torch's plain kernels, in place of fused ones that take no hooks or have no gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def fast_path_off() -> Iterator[None]:
    """Turn off the fused kernels of ``nn.TransformerEncoder`` and ``nn.MultiheadAttention``.

    In evaluation and without gradients, an encoder with padding hands its layers nested tensors,
    which a layer with hooks cannot take and in which padded positions are lost. With the fast path
    off, its layers compute what they compute in training, as tensors of one shape.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def cudnn_off_if_recurrent(model: nn.Module) -> Iterator[None]:
    """Turn off cuDNN if a network has recurrent layers, whose gradients it has in training alone.

    Torch's own kernels, which then compute these layers, have them in evaluation as well.
    """
    if not any(isinstance(module, nn.RNNBase) for module in model.modules()):
        yield
        return
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
