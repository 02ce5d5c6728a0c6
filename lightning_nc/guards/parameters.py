"""Restore the parameters of a network, or detect that a forward pass has changed them."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_nc.guards.comparison import as_integers, dense_parts, which_differ
from lightning_nc.guards.memory import restore_content, restore_memory
from lightning_nc.guards.restoring import restoring
from lightning_nc.wording import listed


@contextmanager
def parameters_watched(model: nn.Module) -> Iterator[None]:
    """Raise if a forward pass changes a parameter in place or would initialise a lazy one.

    Parameters that were given other memory, as in max-norm layers, get theirs again.

    Raises:
        RuntimeError: If so; the message names the parameters.
    """
    parameters = dict(model.named_parameters())
    lazy = [name for name, parameter in parameters.items() if is_lazy(parameter)]
    if lazy:
        raise RuntimeError(
            f"The parameters {listed(lazy, 3)} have no shape yet, and measuring would "
            "initialise them. Run a batch through the network before training, or start measuring "
            "after the first epoch with epochs=[1, ...]."
        )
    checksum = Checksum()
    before = {name: checksum(parameter) for name, parameter in parameters.items()}
    with restoring() as later:
        for name, parameter in parameters.items():
            later(f"the parameter {name}", restore_memory, parameter, parameter.data)
        yield
    differ = which_differ((before[name], checksum(p)) for name, p in parameters.items())
    changed = [name for name, differs in zip(parameters, differ, strict=True) if differs]
    if changed:
        raise RuntimeError(
            f"A forward pass in evaluation mode changed the parameters {listed(changed, 3)} in "
            "place, so training is no longer what it would have been. Such a network cannot be "
            "measured: remove the change from its forward()."
        )


@contextmanager
def bounded_norms_kept(model: nn.Module) -> Iterator[None]:
    """Restore the rows that embeddings of bounded norm rescale in place when they are read."""
    embeddings: list[Any] = [module for module in model.modules() if is_rescaled(module)]
    with _kept(each.weight for each in embeddings):
        yield


def is_rescaled(module: nn.Module) -> bool:
    """Whether a module is an embedding that rescales rows of its weight when it reads them."""
    return isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None


def attribute(module: nn.Module, name: str) -> Any:
    """What a module has under a name; None without it.

    A property runs the user's code, which may fail, or write to parameters: these are restored.

    Example:
        >>> attribute(nn.Linear(2, 3), "out_features")
        3
    """
    if not isinstance(inspect.getattr_static(type(module), name, None), property):
        return getattr(module, name, None)
    with _kept(module.parameters()):
        try:
            return getattr(module, name, None)
        except Exception:
            return None


@contextmanager
def _kept(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Restore the content of some parameters."""
    copies = [(each, each.detach().clone()) for each in parameters]
    with restoring() as later:
        for each, copy in copies:
            later("a parameter", _restore_changed, each, copy)
        yield


def _restore_changed(parameter: Tensor, copy: Tensor) -> None:
    # autograd refuses graphs of tensors written to since, whatever was written
    if any(which_differ([(parameter, copy)])):
        restore_content(parameter, copy)


class Checksum:
    """Sums of a tensor's bits that change with any bit, and with any move of numbers.

    Numbers are read as integers of up to 32 bits. Those of a block are multiplied by odd numbers of
    64 bits, drawn once, and summed modulo 2**64; there is one sum for each block. So a change of
    one number is always noticed. One of several numbers is missed with a probability of at most
    2**-32 over the draw: that of changed signs alone; of most other changes, less than 2**-50. A
    plain sum would miss every move. A sum of 64-bit integers would be faster, but miss every even
    number of signs that change at the top of these.

    Versions of tensors would cost nothing, but miss what is written through ``.data``. The memory
    is read once, in blocks that stay in the cache.
    """

    def __init__(self) -> None:
        self._factors: dict[torch.device, Tensor] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the sums, int64, of a tensor in any layout."""
        parts = [_in_memory_order(part) for part in dense_parts(tensor)]
        blocks = [block for x in parts for block in torch.split(x, _at_once(x.device))]
        return torch.stack([self._sum(block) for block in blocks])

    def _sum(self, block: Tensor) -> Tensor:
        factors = self._factors_on(block.device)[: len(block)]
        if block.device.type == "cpu":
            return torch.dot(block.long(), factors)  # of integers, there is none elsewhere
        return (block * factors).sum()

    def _factors_on(self, device: torch.device) -> Tensor:
        if device not in self._factors:
            drawn = torch.empty(_at_once(device), dtype=torch.int64)
            drawn.random_(-(2**63), None, generator=torch.Generator().manual_seed(0))
            self._factors[device] = (drawn | 1).to(device)
        return self._factors[device]


def _at_once(device: torch.device) -> int:
    """How many numbers to sum at a time.

    On a CPU, torch shares sums of more than 2**15 between threads, which wait for each other where
    the machine has other work; and the memory for more than 2**14 is not reused from sum to sum.
    """
    return 2**14 if device.type == "cpu" else 2**22


def _in_memory_order(x: Tensor) -> Tensor:
    """The numbers of a dense tensor as integers of up to 32 bits, in one dimension."""
    bits = as_integers(x)
    if not bits.is_contiguous():
        bits = bits.permute(sorted(range(bits.ndim), key=bits.stride, reverse=True))
    bits = bits.reshape(-1)  # a copy only where other numbers lie in between
    return bits.view(torch.int32) if bits.element_size() == 8 else bits
