"""Networks whose parameters are sharded by FSDP are left in the parts in which they were."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

# what the first FSDP hangs on a flat parameter in a forward pass, and takes off after the backward
_UNTIL_BACKWARD = ("_post_backward_hook_state", "_post_backward_hook_handle")


@contextmanager
def shards_kept(model: nn.Module) -> Iterator[None]:
    """Undo what FSDP leaves after a forward pass in expectation of a backward pass.

    The root's parameters stay whole then; and the first FSDP (``FullyShardedDataParallel``) keeps
    hooks that would make the next backward pass one of a pass that is over.
    """
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")  # else nothing can be sharded
    modules = list(model.modules()) if fsdp is not None else []
    whole = [module for module in modules if isinstance(module, fsdp.FSDPModule)]
    wrappers = [module for module in modules if isinstance(module, fsdp.FullyShardedDataParallel)]
    flat = [(w, w._handle.flat_param) for w in wrappers if w._handle is not None]
    before = {id(parameter): set(vars(parameter)) for _, parameter in flat}
    try:
        yield
    finally:
        for module in whole:
            module.reshard()
        for wrapper, parameter in flat:
            for name in _UNTIL_BACKWARD:
                if name in set(vars(parameter)) - before[id(parameter)]:
                    hooked = getattr(parameter, name)
                    (hooked[-1] if isinstance(hooked, tuple) else hooked).remove()
                    delattr(parameter, name)
            if not wrapper._handle.is_sharded(parameter):
                fsdp._runtime_utils._reshard(wrapper, wrapper._handle, True)
