"""The tensors in a nesting of containers, such as a batch, and how a batch is described."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SPARSE = (
    torch.sparse_coo,
    torch.sparse_csr,
    torch.sparse_csc,
    torch.sparse_bsr,
    torch.sparse_bsc,
)


def parts_of(value: Any) -> dict[Any, Any]:
    """The parts of a container by their keys, positions or names; empty for anything else.

    Containers are mappings, tuples, lists and dataclasses, and objects that hold a tensor ``x``, as
    graphs do.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    x = None if isinstance(value, Tensor) else getattr(value, "x", None)
    return {"x": x} if isinstance(x, Tensor) else {}


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in a nesting of containers, in order."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in parts_of(value).values():
            yield from tensors_in(part)


def plain(tensor: Tensor) -> Tensor:
    """The same tensor without a class that gives torch's functions other parameters, as MONAI's.

    What holds its numbers in another way, such as shards, stays what it is.
    """
    kind: Any = type(tensor)
    stored_as_usual = kind.__torch_dispatch__ is Tensor.__torch_dispatch__
    return tensor.as_subclass(Tensor) if kind is not Tensor and stored_as_usual else tensor


def dense(tensor: Tensor) -> Tensor:
    """The same tensor with the zeros that a sparse one does not store."""
    return tensor.to_dense() if tensor.layout in _SPARSE else tensor


def floating_tensor_in(value: Any) -> Tensor | None:
    """The first floating-point tensor in a nesting of containers; None without one.

    Single numbers, such as a time or a temperature, are passed over.
    """
    return next((x for x in tensors_in(value) if x.is_floating_point() and x.ndim), None)


def replaced(value: Any, old: Tensor, new: Tensor) -> Any:
    """The value with one tensor replaced, in copies of the containers that hold it.

    Example:
        >>> import torch
        >>> x, y = torch.zeros(1), torch.ones(1)
        >>> replaced({"views": (x, y)}, x, y)
        {'views': (tensor([1.]), tensor([1.]))}
    """
    if value is old:
        return new
    parts = parts_of(value)
    after = {name: replaced(part, old, new) for name, part in parts.items()}
    changed = {name: part for name, part in after.items() if part is not parts[name]}
    if not changed:
        return value
    if isinstance(value, tuple):
        return value._make(after.values()) if hasattr(value, "_make") else tuple(after.values())
    result: Any = copy.copy(value)
    for name, part in changed.items():
        if isinstance(value, Mapping | list):
            result[name] = part
        else:
            object.__setattr__(result, name, part)  # a dataclass may be frozen
    return result


def described(value: Any) -> str:
    """A short description of what a batch or a part of it holds.

    Example:
        >>> described([{"ids": [1, 2]}, "cat"])
        "a list of 2 items: a dict of 'ids': a list of 2 int; a str"
    """
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype} and shape {value.shape}"
    kind = f"a {type(value).__name__}"
    if isinstance(value, tuple | list):
        kinds = {type(part).__name__ for part in value}
        plain = len(kinds) == 1 and not parts_of(value[0]) and not isinstance(value[0], Tensor)
        if plain or len(value) > 9:
            return f"{kind} of {len(value)} {kinds.pop() if len(kinds) == 1 else 'items'}"
        return f"{kind} of {len(value)} items: {'; '.join(map(described, value))}"
    parts = parts_of(value)
    if parts:
        named = [f"{name!r}: {described(part)}" for name, part in list(parts.items())[:9]]
        return f"{kind} of {', '.join(named)}"
    return kind
