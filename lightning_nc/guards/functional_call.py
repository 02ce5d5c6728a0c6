"""Call a module with other tensors in place of its own."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def functional_call(
    module: nn.Module, tensors: Mapping[str, Tensor], args: Any, kwargs: Any = None
) -> Any:
    """Call a module as `torch.func.functional_call` does, and leave it with its own tensors.

    Where a part has several names, as in ``nn.ModuleList([block] * 3)``, torch would exchange its
    tensors once for each name, and leave it with the others.

    Args:
        module: The module.
        tensors: Parameters and buffers by name; those that are shared count under all their names.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """
    parts = dict(module.named_modules(remove_duplicate=False))
    held: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    held |= module.named_buffers(remove_duplicate=False)
    others = {id(held[name]): tensor for name, tensor in tensors.items() if name in held}
    exchanged: dict[tuple[int, str], tuple[str, Tensor]] = {}
    for name, own in held.items():
        path, _, local = name.rpartition(".")
        if id(own) in others:
            exchanged.setdefault((id(parts[path]), local), (name, others[id(own)]))
    once_each = dict(exchanged.values())
    with _copies_hidden(parts.values()):
        return torch.func.functional_call(module, once_each, args, kwargs, tie_weights=False)


@contextmanager
def _copies_hidden(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Hide attributes that have the names of parameters, and would be used in their place.

    In a forward pass, FSDP1 puts its whole parameters there, too.
    """
    hidden = [
        (vars(each), name, vars(each).pop(name))
        for each in modules
        for name, _ in each.named_parameters(recurse=False, remove_duplicate=False)
        if name in vars(each)
    ]
    try:
        yield
    finally:
        for attributes, name, tensor in hidden:
            attributes[name] = tensor
