"""One network on all processes: the buffers of process 0, and parameters that are the same."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from lightning_nc.guards.parameters import Checksum
from lightning_nc.guards.shards import whole_parameters
from lightning_nc.passes.agreement import Processes
from lightning_nc.wording import listed

_PARTS = 64  # of the parameters, which are compared part by part: processes may have any number


@contextmanager
def one_network(model: nn.Module, processes: Processes) -> Iterator[dict[str, str]]:
    """Give all processes the buffers of process 0 inside the block, and restore their own after it.

    Under DDP the running statistics of BatchNorm differ between processes from the end of a
    training step until the next forward pass, which starts from those of process 0. Checkpoints
    hold the network of process 0, so that network is measured.

    Parameters are compared. DDP and FSDP keep them the same; those that these do not know of train
    apart, without a word.

    Args:
        model: The network, of the same structure on all processes.
        processes: The processes; all of them enter the block.

    Yields:
        A note on parameters that are not the same on all processes; empty if all are.
    """
    if processes.world == 1:
        yield {}
        return
    buffers = [b for b in model.buffers() if _is_plain(b)]
    own = [buffer.detach().clone() for buffer in buffers]
    names, checksums = _checksums(model, own[0].device if own else processes.device)
    contents, apart = _exchanged(own, checksums, processes)
    _assign(buffers, contents)
    try:
        yield _note([name for part, name in names if apart[part]])
    finally:
        _assign(buffers, own)


def _is_plain(buffer: Tensor) -> bool:
    """Whether the content of a buffer is a sequence of bytes that can be sent."""
    return type(buffer) is Tensor and buffer.layout is torch.strided and not buffer.is_meta


def _checksums(model: nn.Module, device: torch.device) -> tuple[list[tuple[int, str]], Tensor]:
    """A number for each part of the parameters, int64, that changes with any of their bits.

    No vote has been held yet, so a failure must not keep this process from what follows. The same
    sums are taken again where a vote follows, which tells of it.

    Returns:
        The part and the name of each parameter, and the numbers, shape ``(_PARTS,)``.
    """
    names, sums = list[tuple[int, str]](), torch.zeros(_PARTS, dtype=torch.int64, device=device)
    with suppress(Exception):
        checksum, parameters = Checksum(), whole_parameters(model)
        for place, (name, parameter) in enumerate(parameters.items()):
            part = place * _PARTS // len(parameters)
            sums[part] += checksum(parameter).sum().to(device)
            names.append((part, name))
    return names, sums


def _exchanged(
    own: list[Tensor], checksums: Tensor, processes: Processes
) -> tuple[list[Tensor], list[bool]]:
    """The tensors of process 0, and which checksums are not the same on all processes.

    This is one reduction of bytes, to which each process adds zeros where others have theirs.
    """
    sent = [each.contiguous().flatten().view(torch.uint8) for each in own]
    if processes.rank > 0:
        sent = [torch.zeros_like(each) for each in sent]
    of_all = checksums.new_zeros(processes.world, _PARTS)
    of_all[processes.rank] = checksums
    sent.append(of_all.flatten().view(torch.uint8))
    *parts, found = torch.split(processes.all_reduce(torch.cat(sent)), [*map(len, sent)])
    contents = [
        part.clone().view(each.dtype).view(each.shape)
        for part, each in zip(parts, own, strict=True)
    ]
    of_all = found.clone().view(torch.int64).view(of_all.shape)
    return contents, (of_all != of_all[0]).any(0).tolist()


@torch.no_grad()
def _assign(buffers: list[Tensor], contents: list[Tensor]) -> None:
    for buffer, content in zip(buffers, contents, strict=True):
        buffer.copy_(content)


def _note(names: list[str]) -> dict[str, str]:
    """A note on parameters that are not the same on all processes, or are next to such."""
    if not names:
        return {}
    return {
        "parameters": f"parameters ({listed(names, 3)}) are not the same on all processes, which "
        "train them apart, so values are of different networks. Let the strategy synchronise them: "
        "under ModelParallelStrategy, fully_shard(self) after its parts; with local SGD, before "
        "each measurement."
    }
