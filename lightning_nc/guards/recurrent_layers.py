"""Recurrent layers of torch, so that they have gradients in evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
