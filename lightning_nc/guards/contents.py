"""Copies of what tensors, arrays and containers hold: of all of it, or of an evenly spaced part."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import islice
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_nc.guards.comparison import which_differ
from lightning_nc.guards.memory import restore_memory
from lightning_nc.guards.stand_ins import goes_one_way

_LINE = 64  # bytes that are looked at together
_PART = 2**16  # lines or items of what is too large to be copied
_ITEM = 40  # bytes that copying an item of a container costs, and comparing it
_OBJECTS = 5_000  # that are looked at, which takes about 0.1 s

CLOSED = "held something open that has been closed, so it is left as it is now"


class Budget:
    """What may be spent on one measurement.

    Args:
        megabytes: How much may be copied; of what is too large for the rest of it, a part is.
    """

    def __init__(self, megabytes: float) -> None:
        self.bytes, self.objects, self.parts = megabytes * 2**20, _OBJECTS, 4 * _PART

    def step(self, size: int, unit: int, cost: int) -> int:
        """Return 1 if a thing may all be copied, else the distance between what is copied of it.

        Args:
            size: The number of bytes or items.
            unit: How many of them are copied together.
            cost: The number of bytes that copying all of them costs.
        """
        if cost <= self.bytes:
            self.bytes -= cost
            return 1
        most = max(min(_PART, self.parts // 2), 1)
        self.parts -= min(most, -(-size // unit))
        return -(-size // (unit * most))

    def some(self, items: Iterable[Any], size: int) -> Iterable[Any]:
        """Return all items, or evenly spaced ones where these are more than half of the objects."""
        most = max(self.objects // 2, 1)
        return items if size <= most else islice(items, 0, None, -(-size // most))


class Content:
    """The memory of a tensor or an array, and a copy of it, or of lines of 64 bytes.

    Args:
        itself: The tensor or array.
        budget: What may be copied.
    """

    def __init__(self, itself: Any, budget: Budget) -> None:
        self.itself = itself
        self.memory = itself.detach() if isinstance(itself, Tensor) else _tensor_of(itself)
        self.size = self.memory.numel() * self.memory.element_size()
        self.step = budget.step(self.size, _LINE, self.size)
        part = self.part()
        # NumPy copies and compares several times faster on the CPU
        self.copy = (
            torch.from_numpy(part.numpy().copy()) if part.device.type == "cpu" else part.clone()
        )
        self.differs = True  # until it is compared

    @staticmethod
    def can_change(x: Any) -> bool:
        """Whether a value is a tensor or array whose memory can be written to and copied."""
        if isinstance(x, np.ndarray):  # a file that is mapped into memory is no memory
            return x.flags.writeable and not (x.dtype.hasobject or isinstance(x, np.memmap))
        # not parameters, which another guard watches
        strided = type(x) is Tensor and x.layout == torch.strided and not x.is_nested
        return strided and not (x.is_quantized or x.is_meta or x.is_conj() or _is_freed(x))

    def part(self) -> Tensor:
        """The bytes that are compared, as they are now."""
        flat = self._dense().contiguous().view(-1)
        flat = flat.unsqueeze(-1).view(torch.uint8).view(-1)  # also of one item with any stride
        if self.step == 1:
            return flat
        return flat[: len(flat) // _LINE * _LINE].view(-1, _LINE)[:: self.step]

    @staticmethod
    def compare(contents: Iterable["Content"]) -> None:
        """Find out which have changed, waiting for each device only once."""
        elsewhere = []
        for each in contents:
            if each.copy.device.type == "cpu":
                each.differs = not np.array_equal(each.part().numpy(), each.copy.numpy())
            else:
                elsewhere.append(each)
        differ = which_differ((each.part(), each.copy) for each in elsewhere)
        for each, differs in zip(elsewhere, differ, strict=True):
            each.differs = differs

    def _dense(self) -> Tensor:
        """A view of the memory in the order of its addresses, and without repetitions."""
        x = torch.view_as_real(self.memory) if self.memory.is_complex() else self.memory
        if x.is_contiguous():
            return x
        for axis in range(x.ndim):
            x = x.narrow(axis, 0, 1) if x.stride(axis) == 0 and x.shape[axis] else x
        return x.permute(sorted(range(x.ndim), key=x.stride, reverse=True))

    def put_back(self) -> tuple[bool, str]:
        """Put all back; return whether it was changed, and why it could not be put back."""
        moved = isinstance(self.itself, Tensor) and restore_memory(self.itself, self.memory)
        if self.differs and self.step > 1:
            return True, f"holds too much to be put back ({self.size / 2**20:.0f} MB)"
        if self.differs:
            x = self._dense()
            with torch.inference_mode(x.is_inference()), torch.no_grad():
                x.copy_(self.copy.view(x.dtype).view(x.shape))
        return self.differs or moved, ""


class Items:
    """A list, dict, set, deque, bytearray or array of objects, and its original items.

    Args:
        itself: The container.
        budget: What may be copied.
    """

    KINDS = (list, dict, set, deque, bytearray)

    @classmethod
    def can_change(cls, x: Any) -> bool:
        """Whether a value is a container whose items can be put back."""
        return isinstance(x, cls.KINDS) or (isinstance(x, np.ndarray) and x.dtype == object)

    def __init__(self, itself: Any, budget: Budget) -> None:
        self.itself, self._kind = itself, _kind_of(itself)
        self.size = self._kind.__len__(_in_a_row(itself))
        self.step = budget.step(self.size, 1, _ITEM * self.size)
        self.items = self.now()

    def now(self) -> list[list[Any]]:
        """The items, of a dict its keys and its values."""
        x, kind = _in_a_row(self.itself), self._kind
        parts = (kind.keys(x), kind.values(x)) if issubclass(kind, dict) else (kind.__iter__(x),)
        return [list(islice(part, 0, None, self.step)) for part in parts]

    @staticmethod
    def values_of(x: Any) -> tuple[Iterable[Any], int]:
        """The values in a container, and how many these are."""
        x, kind = _in_a_row(x), _kind_of(x)
        return (kind.values if issubclass(kind, dict) else kind.__iter__)(x), kind.__len__(x)

    def one_way(self) -> list[tuple[Any, Any]]:
        """Caches and iterators, by index or key."""
        if self.step > 1 or isinstance(self.itself, set | bytearray):
            return []
        values = self.items[-1]
        kinds = {kind for kind in set(map(type, values)) if goes_one_way(kind)}
        if not kinds:
            return []
        keys = self.items[0] if isinstance(self.itself, dict) else range(len(values))
        return [each for each in zip(keys, values, strict=True) if type(each[1]) in kinds]

    def at(self, key: Any) -> Any:
        """The value of an index or key now."""
        return self._kind.__getitem__(_in_a_row(self.itself), key)

    def assign(self, key: Any, value: Any) -> None:
        """Give an index or key another value for now."""
        if self._kind is np.ndarray:
            self.itself.flat[key] = value  # `flat` writes through, however the items lie
        else:
            self._kind.__setitem__(self.itself, key, value)

    def put_back(self) -> tuple[bool, str]:
        """Put all back; return whether items were changed, and why they could not be put back."""
        now = self.now()
        pairs = list(zip(now, self.items, strict=True))
        same_size = self._kind.__len__(_in_a_row(self.itself)) == self.size
        if same_size and all(all(map(is_, *pair)) for pair in pairs):
            return False, ""
        if self.step > 1:
            return True, f"holds too much to be put back ({self.size} items)"
        still_there = set(map(id, now[-1]))
        if any(is_closed(value) for value in self.items[-1] if id(value) not in still_there):
            return True, CLOSED
        self._fill(self.items)
        return True, ""

    def _fill(self, items: list[list[Any]]) -> None:
        x: Any = self.itself
        kind = self._kind
        if issubclass(kind, dict):
            kind.clear(x)
            for key, value in zip(*items, strict=True):
                kind.__setitem__(x, key, value)
        elif kind is np.ndarray:
            for index, value in enumerate(items[0]):
                x.flat[index] = value
        else:
            kind.clear(x)
            (kind.update if kind is set else kind.extend)(x, items[0])


def _in_a_row(x: Any) -> Any:
    """A container; of an array its items along one axis, a copy if they are not in a row."""
    return x.reshape(-1) if isinstance(x, np.ndarray) else x


def _kind_of(x: Any) -> Any:
    """The class whose methods are used on a container: those of derived ones may do anything.

    ``Counter.update()`` adds, and dicts of a library import a network when a value is looked up.
    """
    kinds = (OrderedDict, *Items.KINDS, np.ndarray)
    return next(kind for kind in kinds if isinstance(x, kind))


def is_closed(x: Any) -> bool:
    """Whether a value is a file or a handle of a library that has been closed."""
    try:
        if getattr(x, "closed", False) is True:
            return True
        of_h5py = type(x).__module__.startswith("h5py")
        return of_h5py and not x
    except Exception:
        return False


def _is_freed(x: Tensor) -> bool:
    """Whether the memory of a tensor is freed for now, as that of sharded parameters."""
    return x.numel() > 0 and x.untyped_storage().size() == 0


def _tensor_of(array: Any) -> Tensor:
    """The memory of an array as bytes, with one axis more."""
    ahead = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in array.strides)
    return torch.from_numpy(np.asarray(array)[(*ahead, ..., None)].view(np.uint8))
