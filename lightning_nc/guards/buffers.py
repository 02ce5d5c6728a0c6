"""Restore the buffers of a network, and remove parts that a forward pass adds to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lightning_nc.guards.comparison import which_differ
from lightning_nc.guards.torch_internals import buffers_held, parts_held


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Restore every buffer, and remove buffers, modules and parameters that a forward pass adds."""
    # by module, because a forward pass may add buffers or fill those that are None
    held = [(buffers, dict(buffers)) for buffers in map(buffers_held, model.modules())]
    python = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    parts = [part for module in python for part in parts_held(module)]
    names = [set(part) for part in parts]
    tensors = {b for _, buffers in held for b in buffers.values() if b is not None}
    contents = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for now, buffers in held:
            for added in set(now.keys()) - set(buffers):
                del now[added]
            for name, buffer in buffers.items():
                now[name] = buffer
        for part, before in zip(parts, names, strict=True):
            for added in part.keys() - before:
                del part[added]  # a later forward pass builds it again
        differ = [True] * len(contents)
        try:
            differ = which_differ(contents)
        finally:  # also if the comparison is interrupted
            with torch.no_grad():
                for (tensor, content), differs in zip(contents, differ, strict=True):
                    if differs:
                        tensor.copy_(content)
