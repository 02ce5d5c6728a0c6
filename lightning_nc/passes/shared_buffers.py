"""One network on all processes: the buffers of process 0."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_nc.passes.agreement import Processes


@contextmanager
def buffers_of_first_process(model: nn.Module, processes: Processes) -> Iterator[None]:
    """Give all processes the buffers of process 0 inside the block, and restore their own after it.

    Under DDP the running statistics of BatchNorm differ between processes from the end of a
    training step until the next forward pass, which starts from those of process 0. Checkpoints
    hold the network of process 0, so that network is measured.

    Args:
        model: The network, the same on all processes except for its buffers.
        processes: The processes; all of them enter the block.
    """
    buffers = [] if processes.world == 1 else [b for b in model.buffers() if _is_plain(b)]
    own = [buffer.detach().clone() for buffer in buffers]
    if buffers:
        _assign(buffers, _of_first_process(own, processes))
    try:
        yield
    finally:
        _assign(buffers, own)


def _is_plain(buffer: Tensor) -> bool:
    """Whether the content of a buffer is a sequence of bytes that can be sent."""
    return type(buffer) is Tensor and buffer.layout is torch.strided and not buffer.is_meta


def _of_first_process(own: list[Tensor], processes: Processes) -> list[Tensor]:
    """The tensors of process 0, by one reduction of bytes to which the others add zeros."""
    sent = torch.cat([each.contiguous().flatten().view(torch.uint8) for each in own])
    received = processes.all_reduce(sent if processes.rank == 0 else torch.zeros_like(sent))
    parts = torch.split(received, [each.numel() * each.element_size() for each in own])
    return [
        part.clone().view(each.dtype).view(each.shape)
        for part, each in zip(parts, own, strict=True)
    ]


@torch.no_grad()
def _assign(buffers: list[Tensor], contents: list[Tensor]) -> None:
    for buffer, content in zip(buffers, contents, strict=True):
        buffer.copy_(content)
