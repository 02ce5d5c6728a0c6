"""Leave networks that FSDP has sharded in the shards they were in."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_nc.guards.restoring import restoring

# what FSDP1 attaches to a flat parameter in a forward pass and removes after the backward pass
_UNTIL_BACKWARD = ("_post_backward_hook_state", "_post_backward_hook_handle")


def put_in_shards(model: nn.Module) -> None:
    """Make sure that what other guards note is what training goes on with.

    FSDP2 leaves a root whole after a forward pass without a backward pass, as after validation. Its
    whole parameters are freed when `shards_kept` ends, so it is sharded.

    FSDP1 casts buffers once, before its first forward pass, which may be ours. They would be put
    back in their own precision, and stay in it.
    """
    for module in _of_second(model):
        module.reshard()
    for wrapper in _of_first(model):  # from the outside in
        wrapper.check_is_root()  # which sets it up as a forward pass does


def whole_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters by name that a process has in memory, and not only a shard of them."""
    if _of_first(model):
        return {}  # it shards all that it wraps
    return {
        name: p
        for name, p in model.named_parameters()
        if not (hasattr(p, "__tensor_flatten__") or p.is_meta or is_lazy(p))
    }


def is_in_parts(model: nn.Module) -> bool:
    """Whether this process has only a part of the network's parameters, but for when they run."""
    return bool(_of_first(model) or _of_second(model) or split_parameters(model))


def split_parameters(model: nn.Module) -> list[str]:
    """The parameters that tensor parallelism splits, so that features may be parts, too.

    FSDP splits along one dimension of its mesh, and what it splits is whole when it is used.
    """
    of_fsdp = {p for module in _of_second(model) for p in module.parameters()}

    def splits(parameter: Any) -> int:
        return sum(not each.is_replicate() for each in getattr(parameter, "placements", ()))

    return [name for name, p in model.named_parameters() if splits(p) > (p in of_fsdp)]


@contextmanager
def shards_kept(model: nn.Module) -> Iterator[None]:
    """Undo what FSDP leaves behind after a forward pass because it expects a backward pass.

    The root's parameters stay unsharded. FSDP1 (``FullyShardedDataParallel``) keeps hooks that
    would tie the next backward pass to a forward pass that is over. After a forward pass that
    fails, FSDP1 and FSDP2 (``fully_shard``) still record that they are in it.
    """
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    first, second = _of_first(model), _of_second(model)
    flat = [(w, w._handle.flat_param) for w in first if w._handle is not None]
    with restoring() as later:
        for owner, name in (*_places_of_second(second), *_places_of_first(first)):
            later("the training state of FSDP", setattr, owner, name, getattr(owner, name))
        for module in second:
            later("the shards of FSDP", module.reshard)
        for wrapper, parameter in flat:
            later("the hooks of FSDP", _remove_hooks, parameter, set(vars(parameter)))
            later("the shards of FSDP", _reshard, fsdp, wrapper, parameter)
        yield


def _of_first(model: nn.Module) -> list[Any]:
    """The wrappers of FSDP1; none unless it is loaded."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    return [] if fsdp is None else _of_kind(model, fsdp.FullyShardedDataParallel)


def _of_second(model: nn.Module) -> list[Any]:
    """The modules that FSDP2 shards; none unless it is loaded."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    return [] if fsdp is None else _of_kind(model, fsdp.FSDPModule)


def _of_kind(model: nn.Module, kind: type) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def _remove_hooks(parameter: Any, before: set[str]) -> None:
    """Remove the hooks that FSDP1 has attached to a flat parameter since then."""
    for name in _UNTIL_BACKWARD:
        if name in set(vars(parameter)) - before:
            hooked = getattr(parameter, name)
            (hooked[-1] if isinstance(hooked, tuple) else hooked).remove()
            delattr(parameter, name)


def _reshard(fsdp: Any, wrapper: Any, parameter: Any) -> None:
    handle = wrapper._handle
    if handle.uses_sharded_strategy and not handle.is_sharded(parameter):
        fsdp._runtime_utils._reshard(wrapper, handle, True)


def _places_of_second(modules: list[Any]) -> Iterator[tuple[Any, str]]:
    """Yield where FSDP2 stores its training state."""
    for module in modules:
        state = module._get_fsdp_state()
        groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]
        for owner in (state, *(group for group in groups if group is not None)):
            yield owner, "_training_state"
        yield state._state_ctx, "iter_forward_root"


def _places_of_first(wrappers: list[Any]) -> Iterator[tuple[Any, str]]:
    """Yield where FSDP1 stores its training state."""
    for wrapper in wrappers:
        yield wrapper, "training_state"
        if wrapper._handle is not None:
            yield wrapper._handle, "_training_state"
