"""What is reached from objects of the user: attributes, items, classes, closures and globals."""

import random
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from enum import EnumMeta
from functools import cached_property, partial
from io import IOBase
from itertools import chain
from threading import Thread
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lightning_nc.guards.contents import Budget, Content, Items
from lightning_nc.guards.names import Names, in_class, in_function, in_object
from lightning_nc.guards.stand_ins import CACHE

GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
_PARTS = {"dataset", "datasets", "transform", "target_transform", "transforms"}
_PLAIN = {int, float, bool, str, bytes, complex, type(None), torch.dtype, torch.device, torch.Size}
_PLAIN |= {np.int64, np.int32, np.float64, np.float32, np.str_}
_PLAIN |= {weakref.ProxyType, weakref.CallableProxyType}
_BARE = {tuple, list, dict, set, deque, Tensor, np.ndarray}  # nothing else belongs to them
_LIBRARIES = {"torch", "lightning", "pytorch_lightning", "lightning_fabric", "lightning_nc"}
_LIBRARIES |= {"numpy", *sys.stdlib_module_names}


class Reached(NamedTuple):
    """A thing that can be changed.

    Attributes:
        thing: `Names`, a container, a tensor, an array, a random generator or a file.
        where: What a user would call it.
        alone: False if it is one of many in a container, of which only some are looked at.
    """

    thing: Any
    where: str
    alone: bool


class _Waiting(NamedTuple):
    value: Any
    where: str
    alone: bool = True
    part: bool = False  # of the data, in whatever package its class is


def reachable(
    roots: Iterable[Any], budget: Budget, seen: Iterable[Any] = (), names: Iterable[Names] = ()
) -> Iterator[Reached]:
    """Yield all that can be changed and is reached from roots, each once, nearest first.

    Objects of the user's own classes are entered, and datasets, transforms and modules of any:
    other objects of libraries may be changed by threads of theirs. Of containers that hold more
    objects than the budget allows, evenly spaced items are entered.

    Args:
        roots: Where to begin.
        budget: How many objects may be looked at.
        seen: Objects that are not entered.
        names: Other names to begin with.
    """
    code, done = _Code(), {id(each) for each in seen}
    waiting = deque(_Waiting(root, type(root).__name__, part=True) for root in roots)
    for each in names:
        yield Reached(each, each.owner, True)
        waiting += _values(each, True)
    while waiting and budget.objects > 0:
        item = waiting.popleft()
        value, where, alone, _ = item
        if type(value) in _PLAIN or id(value) in done or _is_of_compiler(value):
            continue
        done.add(id(value))
        budget.objects -= 1
        if can_be_changed(value):
            yield Reached(value, where, alone)
        waiting += _inside(item, budget)
        if type(value) in _BARE:
            continue
        kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
        waiting += [_Waiting(kind, kind.__name__, alone) for kind in kinds if code.is_own(kind)]
        if isinstance(value, type) and code.is_own(value):  # its special methods as well
            functions = [each for each in vars(value).values() if isinstance(each, FunctionType)]
            waiting += [_Waiting(each, value.__name__, alone) for each in functions]
        for each in _names(item, code):
            yield Reached(each, each.owner, alone)
            waiting += _values(each, alone)


def can_be_changed(x: Any) -> bool:
    """Whether a value by itself can be changed, and not only what it refers to."""
    if isinstance(x, GENERATORS):
        return not isinstance(x, random.SystemRandom)  # it has no state
    return isinstance(x, IOBase) or Content.can_change(x) or Items.can_change(x)


def _is_of_compiler(x: Any) -> bool:
    """Whether a value is one of the functions around a compiled network."""
    return isinstance(x, FunctionType) and _module(x).startswith("torch._")


def _inside(item: _Waiting, budget: Budget) -> list[_Waiting]:
    """The items of a container, and what functions in other forms consist of."""
    value, where, alone, part = item
    if isinstance(value, tuple):
        return _items(item, tuple.__iter__(value), tuple.__len__(value), budget)
    if Items.can_change(value):
        return _items(item, *Items.values_of(value), budget)
    inner: list[Any] = []
    if isinstance(value, Tensor) and value.layout == torch.sparse_coo:
        inner = [value._indices(), value._values()]
    elif isinstance(value, MethodType):
        inner = [value.__self__, value.__func__]
    elif isinstance(value, partial):
        inner = [value.func, value.args, value.keywords]
    elif isinstance(value, staticmethod | classmethod):
        inner = [value.__func__]
    elif isinstance(value, property):
        inner = [value.fget, value.fset]
    elif isinstance(value, cached_property):
        inner = [value.func]
    elif isinstance(value, CACHE):
        inner = [value.__wrapped__]
    elif isinstance(value, FunctionType):
        inner = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return [_Waiting(each, where, alone, part) for each in inner]


def _names(item: _Waiting, code: "_Code") -> Iterator[Names]:
    """What holds values by names, of a function, a class or an object."""
    value = item.value
    if isinstance(value, type):
        if code.is_own(value):
            yield in_class(value)
    elif isinstance(value, FunctionType):
        yield from in_function(value, code.is_own(value))
    elif not isinstance(value, Tensor | np.ndarray | MethodType | partial | IOBase):
        known = isinstance(value, nn.Module | Dataset | SimpleNamespace)
        if known or item.part or code.is_own(type(value)):
            yield from in_object(value)


def _values(names: Names, alone: bool) -> list[_Waiting]:
    """The values that names stand for."""
    return [
        _Waiting(value, f"{names.owner}.{name}", alone, name in _PARTS)
        for name, value in names.now().items()
    ]


def _items(item: _Waiting, items: Iterable[Any], size: int, budget: Budget) -> list[_Waiting]:
    """The items of a container, unless they are plain, or tuples of what is plain."""
    some = list(budget.some(items, size))
    kinds = set(map(type, some))
    if tuple in kinds:
        kinds |= set(map(type, chain.from_iterable(x for x in some if type(x) is tuple)))
        kinds.remove(tuple)
    if kinds <= _PLAIN:
        return []
    alone = item.alone and len(some) == size
    return [_Waiting(each, item.where, alone, item.part) for each in some]


class _Code:
    """Tells the code of the user, which is not installed, from that of libraries."""

    def __init__(self) -> None:
        self._packages = dict.fromkeys(_LIBRARIES, False)
        self._kinds: dict[type, bool] = {}

    def is_own(self, thing: Any) -> bool:
        """Whether a class or function is the user's own; enumerations and threads are let be."""
        if not isinstance(thing, type):
            return self._of_package(thing)
        if thing not in self._kinds:
            let_be = isinstance(thing, EnumMeta) or issubclass(thing, Thread)
            self._kinds[thing] = not let_be and self._of_package(thing)
        return self._kinds[thing]

    def _of_package(self, thing: Any) -> bool:
        package = _package(thing)
        if package not in self._packages:
            file = getattr(sys.modules.get(_module(thing)), "__file__", None) or ""
            self._packages[package] = "site-packages" not in file and "dist-packages" not in file
        return self._packages[package]


def _package(thing: Any) -> str:
    return _module(thing).partition(".")[0]


def _module(thing: Any) -> str:
    """Where a class or function was written; decorators take over ``__module__``."""
    if isinstance(thing, FunctionType):
        return str(thing.__globals__.get("__name__"))
    return str(getattr(thing, "__module__", None))
