"""Remove the hooks that a forward pass adds, and keep those of the user out of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

from torch import nn

from lightning_nc.guards.entries import restore_later
from lightning_nc.guards.restoring import restoring
from lightning_nc.guards.torch_internals import forward_hooks_held, hooks_held

# libraries whose hooks are part of what a network computes
_OF_NETWORKS = ("torch", "transformers", "peft", "accelerate")


@contextmanager
def hooks_kept(model: nn.Module, user_hooks: bool = True) -> Iterator[None]:
    """Restore the hooks of all kinds on modules and parameters, and those on all modules.

    A forward pass may add hooks or remove them; Transformers adds its own in the first one.

    Args:
        model: The network.
        user_hooks: Whether forward hooks and forward pre-hooks of the user run inside the block.
            All but those of the network itself, as `belongs_to_network` finds them, are the user's.
    """
    modules = [nn.modules.module, *model.modules()]
    with restoring() as later:
        for owner in (*modules, *model.parameters()):
            what = f"the hooks of a {type(owner).__name__}"
            restore_later(later, what, owner, hooks_held(owner))
        if not user_hooks:
            for hooks in (hooks for owner in modules for hooks in forward_hooks_held(owner)):
                for number in [n for n, hook in hooks.items() if not belongs_to_network(hook)]:
                    del hooks[number]
        yield


def belongs_to_network(hook: Any) -> bool:
    """Whether a hook is part of what the network computes, rather than the user's own.

    Torch implements by hooks: pruning, weight and spectral norm of the old style, lazy layers,
    observers of quantisation, and sharding; Transformers, PEFT and Accelerate implement noise on
    embeddings, the choice of adapters and the like. So a hook belongs to the network if it is a
    function or method that is defined in one of these libraries, or an object of a class that is
    defined there or derived from one (other than `torch.nn.Module`), such as a pruning method of
    the user.

    Example:
        >>> layer = nn.utils.spectral_norm(nn.Linear(2, 2))
        >>> [belongs_to_network(hook) for hook in layer._forward_pre_hooks.values()]
        [True]
        >>> belongs_to_network(lambda module, args: print(args))
        False
    """
    while isinstance(hook, partial | MethodType):
        hook = hook.func if isinstance(hook, partial) else hook.__func__
    if hasattr(hook, "__qualname__"):  # a function or a class
        places = [getattr(hook, "__module__", None)]
    else:
        places = [kind.__module__ for kind in type(hook).__mro__ if kind is not nn.Module]
    return any(str(place).split(".")[0] in _OF_NETWORKS for place in places)
