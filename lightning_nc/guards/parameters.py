"""Detect forward passes that change the parameters of a network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_nc.guards.comparison import which_differ


@contextmanager
def parameters_watched(model: nn.Module) -> Iterator[None]:
    """Raise if a forward pass changes a parameter in place or would initialise a lazy one.

    Raises:
        RuntimeError: If so; the message names the parameters.
    """
    parameters = dict(model.named_parameters())
    lazy = [name for name, parameter in parameters.items() if is_lazy(parameter)]
    if lazy:
        raise RuntimeError(
            f"The parameters {', '.join(lazy[:3])} have no shape yet, and measuring would "
            "initialise them. Run a batch through the network before training, or start measuring "
            "after the first epoch with epochs=[1, ...]."
        )
    before = {name: (p.data, _checksum(p)) for name, p in parameters.items()}
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            if parameter.data_ptr() != before[name][0].data_ptr():
                parameter.data = before[name][0]  # replaced, as in max-norm layers
    checksums = [(before[name][1], _checksum(p)) for name, p in parameters.items()]
    differ = which_differ(checksums)
    changed = [name for name, differs in zip(parameters, differ, strict=True) if differs]
    if changed:
        raise RuntimeError(
            f"A forward pass in evaluation mode changed the parameters {', '.join(changed[:3])} in "
            "place, so training is no longer what it would have been. Such a network cannot be "
            "measured: remove the change from its forward()."
        )


def _checksum(parameter: Tensor) -> Tensor:
    """Return a number that changes with any bit; versions miss writes through ``.data``."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    content = parameter.detach()
    content = content.to_local() if hasattr(content, "to_local") else content  # sharded
    if content.is_complex():
        content = torch.view_as_real(content)
    return content.view(integers[content.element_size()]).sum(dtype=torch.int64)
