"""Private names of torch, each behind one function.

Torch may rename them at any time. Each function says what its names stand for and what is lost
without them; a missing name must not stop a run. `tests/guards/test_torch_internals.py` removes
them one by one. The functions on nested containers are torch's own, and Lightning cannot be
imported without them. The private names of FSDP are in `shards`: without them a measurement fails
before it begins.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_unflatten as tree_unflatten

from lightning_nc.guards.restoring import restoring

_PARTS = ("_buffers", "_modules", "_parameters")
_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HOOKS_OF_MODULES = [name for name in vars(nn.Module()) if "_hook" in name]
_HOOKS_OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def writes_so_far(x: Tensor) -> float:
    """Return how many times a tensor has been written to in place.

    Without torch's counter this is NaN, which equals no earlier count, so every tensor counts as
    written to. This is safe but slower.
    """
    return getattr(x, "_version", float("nan"))


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm layer, including user classes derived from torch's base.

    Without the base class, only torch's own layers and classes derived from them are found.
    """
    base = getattr(nn.modules.batchnorm, "_BatchNorm", None)
    return isinstance(module, _BATCH_NORMS if base is None else (*_BATCH_NORMS, base))


def parts_held(module: nn.Module) -> dict[str, Any]:
    """Return the attributes in which a module holds its buffers, modules and parameters, by name.

    Of a ScriptModule, these are the buffers alone. Without the private names, what a forward pass
    adds, replaces or removes stays so.
    """
    alone = isinstance(module, torch.jit.ScriptModule)
    names = _PARTS[:1] if alone else _PARTS
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


def convolves_like(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module's forward pass is that of a convolution class, with nothing overridden.

    A subclass may override the method that convolves. Without the private name of that method, only
    ``forward`` is compared.

    Args:
        module: The module.
        kind: The convolution class.
    """
    parts = ("forward", "_conv_forward")
    return all(getattr(type(module), name, None) is getattr(kind, name, None) for name in parts)


def hooks_held(owner: Any) -> dict[str, Any]:
    """Return the attributes in which something holds its hooks of all kinds, by name.

    They are dictionaries, None where a tensor has none yet, and flags of modules. Without the
    private names, hooks that a forward pass adds stay.

    Args:
        owner: A module, a tensor, or `torch.nn.modules.module`, which holds those of all modules.
    """
    if isinstance(owner, Tensor):
        return {name: getattr(owner, name) for name in _HOOKS_OF_TENSORS if hasattr(owner, name)}
    if isinstance(owner, nn.Module):
        names = _HOOKS_OF_MODULES
    else:
        names = [name for name in vars(owner) if name.startswith("_global") and "_hook" in name]
    return {name: vars(owner)[name] for name in names if name in vars(owner)}


def forward_hooks_held(owner: Any) -> list[dict[int, Any]]:
    """Return the dictionaries in which something holds its forward hooks and forward pre-hooks.

    Without the private names there are none, and hooks are called.

    Args:
        owner: A module, or `torch.nn.modules.module`, which holds those of all modules.
    """
    prefix = "" if isinstance(owner, nn.Module) else "_global"
    return [getattr(owner, prefix + name, {}) for name in _FORWARD_HOOKS]


def forked_off(device: Any) -> bool:
    """Whether this process was forked from one that uses a kind of device, which it then cannot.

    Without the private name, no process counts as forked.

    Args:
        device: Torch's module for the kind of device, such as `torch.mps`.
    """
    return bool(getattr(device, "_is_in_bad_fork", bool)())


@contextmanager
def hooks_off(module: nn.Module) -> Iterator[None]:
    """Call no forward hooks of a module and of those inside it while the block lasts."""
    with restoring() as later:
        for each in module.modules():
            for hooks in forward_hooks_held(each):
                later(f"the hooks of a {type(each).__name__}", hooks.update, dict(hooks))
                hooks.clear()
        yield
