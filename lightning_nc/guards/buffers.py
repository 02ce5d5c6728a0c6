"""Restore the buffers of a network, and the parts of its modules."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import nn

from lightning_nc.guards.comparison import which_differ
from lightning_nc.guards.entries import restore_later
from lightning_nc.guards.memory import restore_content, restore_memory
from lightning_nc.guards.restoring import restoring
from lightning_nc.guards.torch_internals import parts_held


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Restore every buffer, and which buffers, modules and parameters each module has.

    A forward pass may write to buffers, resize, replace, add or remove them, and fill those that
    are None. Tensors are the same objects afterwards, in the same memory, which moves only where a
    forward pass has enlarged it.
    """
    copies = {
        buffer: (f"the buffer {name}", buffer.detach(), buffer.detach().clone())
        for name, buffer in model.named_buffers()
    }
    # unless the comparison says otherwise: autograd refuses graphs of tensors written to since
    differ = dict.fromkeys(copies, True)

    def compare() -> None:
        with suppress(Exception):
            found = which_differ((buffer, copy) for buffer, (*_, copy) in copies.items())
            differ.update(zip(copies, found, strict=True))

    def restore(buffer: torch.Tensor, copy: torch.Tensor) -> None:
        if differ[buffer]:
            restore_content(buffer, copy)

    with restoring() as later:
        for name, module in model.named_modules():
            restore_later(later, f"the parts of module '{name}'", module, parts_held(module))
        for buffer, (what, alias, _) in copies.items():
            later(what, restore_memory, buffer, alias)
        later("the buffers", compare)
        for buffer, (what, _, copy) in copies.items():
            later(what, restore, buffer, copy)
        yield
