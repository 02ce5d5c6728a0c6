"""The names of torch that are not public, each behind one function.

Torch may rename them at any time. Each function says what its names stand for and what is lost
without them; none of them may stop a run. `tests/guards/test_torch_internals.py` takes them away
one by one. The functions on nested containers are torch's own, and Lightning cannot be imported
without them. Those of FSDP are in `shards`: without them a measurement fails before it begins.
"""

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = [
    "buffers_held",
    "convolves_like",
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
    """How many times a tensor has been written to in place.

    Without the counter this is NaN, which equals no earlier count: every tensor then counts as
    written to, which is safe and slower.
    """
    return getattr(x, "_version", float("nan"))


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a kind of BatchNorm, including kinds that users derive from its base.

    Without the name of the base only torch's own kinds, and what is derived from them, are found.
    """
    base = getattr(nn.modules.batchnorm, "_BatchNorm", None)
    return isinstance(module, _BATCH_NORMS if base is None else (*_BATCH_NORMS, base))


def buffers_held(module: nn.Module) -> dict[str, Tensor | None]:
    """The dictionary in which a module holds its buffers, including those that are None.

    Without the name this is a copy without these: what a forward pass adds then stays.
    """
    return getattr(module, "_buffers", dict(module.named_buffers(recurse=False)))


def parts_held(module: nn.Module) -> list[dict[str, Any]]:
    """The dictionaries in which a module holds its submodules and its parameters.

    Without the names these are copies: what a forward pass adds then stays.
    """
    children, parameters = dict(module.named_children()), module.named_parameters(recurse=False)
    return [
        getattr(module, "_modules", children),
        getattr(module, "_parameters", dict(parameters)),
    ]


def convolves_like(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module's forward pass is that of a kind of convolution, with nothing overridden.

    A subclass may override the part that convolves. Without its name only ``forward`` is compared.
    """
    parts = ("forward", "_conv_forward")
    return all(getattr(type(module), name, None) is getattr(kind, name, None) for name in parts)
