"""Restore plain attributes of objects and the contents of their containers."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_nc.guards.torch_internals import writes_so_far

# torch's own attributes of each module, which other guards restore or calls do not change, and
# references to the Trainer
OWN = {*vars(nn.Module()), "_trainer", "_fabric", "trainer"}
_LONG = 1000  # longer containers hold samples and are left alone


@contextmanager
def attributes_kept(things: Iterable[Any], contents: bool = True) -> Iterator[None]:
    """Restore attributes such as counters, caches, hidden states and weights computed by hooks.

    The attributes themselves are restored, and the items of lists, dicts, sets and deques of up to
    1000 items, at any depth.

    Args:
        things: Objects whose attributes to restore. Attributes of objects in them are not restored.
        contents: Whether to restore the contents of tensors too, which copies them.
    """
    held = [
        (vars(thing), {name: v for name, v in vars(thing).items() if name not in OWN})
        for thing in things
        if hasattr(thing, "__dict__")
    ]
    containers: dict[int, _Container] = {}
    tensors: dict[int, _Content] = {}
    for _, attributes in held:
        for value in attributes.values():
            _note(value, containers, tensors if contents else None)
    try:
        yield
    finally:
        for now, before in held:
            for name in now.keys() - before.keys() - OWN:
                del now[name]
            now.update(before)
        for container in containers.values():
            container.put_back()
        for content in tensors.values():
            content.put_back()


class _Container(NamedTuple):
    """A list, dict, set or deque, and its original items."""

    itself: Any
    items: list[Any]

    def put_back(self) -> None:
        if not _same_items(_items(self.itself), self.items):
            self.itself.clear()
            ordered = isinstance(self.itself, list | deque)
            (self.itself.extend if ordered else self.itself.update)(self.items)


class _Content(NamedTuple):
    """A tensor, its version, and a copy of its original content."""

    itself: Tensor
    version: float
    content: Tensor

    def put_back(self) -> None:
        if writes_so_far(self.itself) != self.version:
            with torch.no_grad():
                self.itself.copy_(self.content)


def _note(
    value: Any, containers: dict[int, _Container], tensors: dict[int, _Content] | None
) -> None:
    """Record the content of a value if it is a container or a tensor that can be written to."""
    if isinstance(value, Tensor):
        plain = type(value) is Tensor and not (value.requires_grad or value.is_inference())
        if tensors is not None and plain and id(value) not in tensors:
            tensors[id(value)] = _Content(value, writes_so_far(value), value.clone())
    elif isinstance(value, tuple | list | dict | set | deque) and len(value) <= _LONG:
        if not isinstance(value, tuple):
            if id(value) in containers:
                return
            containers[id(value)] = _Container(value, _items(value))
        for item in value.values() if isinstance(value, dict) else value:
            _note(item, containers, tensors)


def _items(container: Any) -> list[Any]:
    return list(container.items() if isinstance(container, dict) else container)


def _same_items(now: list[Any], before: list[Any]) -> bool:
    """Whether both hold the same objects; the pairs of a dict are new tuples each time."""
    return len(now) == len(before) and all(
        a is b or (isinstance(a, tuple) and len(a) == 2 and a[0] is b[0] and a[1] is b[1])
        for a, b in zip(now, before, strict=True)
    )
