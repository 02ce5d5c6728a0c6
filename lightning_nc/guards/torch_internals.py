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

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = [
    "buffers_held",
    "convolves_like",
    "hooks_off",
    "is_batch_norm",
    "parts_held",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
    "writes_so_far",
]

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


def buffers_held(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the dictionary in which a module holds its buffers, including those that are None.

    Without the private name this is a copy that lacks the None entries, and buffers that a forward
    pass adds stay.
    """
    return getattr(module, "_buffers", dict(module.named_buffers(recurse=False)))


def parts_held(module: nn.Module) -> list[dict[str, Any]]:
    """Return the dictionaries in which a module holds its submodules and its parameters.

    Without the private names these are copies, and what a forward pass adds stays.
    """
    children, parameters = dict(module.named_children()), module.named_parameters(recurse=False)
    return [
        getattr(module, "_modules", children),
        getattr(module, "_parameters", dict(parameters)),
    ]


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


@contextmanager
def hooks_off(module: nn.Module) -> Iterator[None]:
    """Call no forward hooks of a module and of those inside it while the block lasts.

    Without the private names hooks are called.
    """
    names = ("_forward_hooks", "_forward_pre_hooks")
    held = [getattr(m, name, {}) for m in module.modules() for name in names]
    before = [dict(hooks) for hooks in held]
    try:
        for hooks in held:
            hooks.clear()
        yield
    finally:
        for hooks, those in zip(held, before, strict=True):
            hooks.update(those)
