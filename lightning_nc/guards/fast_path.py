"""Torch's own transformers, run layer by layer as in training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
