"""The numbers of many measurements in one growing array, a row per measurement.

Measurements of a run have the same keys and arrays of the same shapes, with few exceptions. What is
the same is kept once, as a `Layout`; the rest is numbers. So a long history consists of three
objects, and appending to it or writing it to a checkpoint does not touch what is there already. Its
single numbers are all kept; of a long one, some measurements keep their arrays.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_nc.measures.measurement import Measurement

MOST = 1_000  # measurements that keep their arrays
HEAD = ("epochs_completed", "step", "seconds")  # the first numbers of each row
# the fields of a measurement that are no numbers
WORDS = [f for f in fields(Measurement) if f.name not in (*HEAD, "values", "arrays", "counts")]


class Kept(NamedTuple):
    """An array of a measurement: its name, which is empty for the counts, dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers of 8 bytes it takes in a row."""
        return math.prod(self.shape) * max(getattr(torch, self.dtype).itemsize // 8, 1)


@dataclass(frozen=True)
class Layout:
    """What the numbers in the row of a measurement mean, and what it has besides numbers.

    Attributes:
        keys: The keys of its values.
        arrays: Its counts and its arrays; one of another shape makes another layout.
        words: Its other fields by name.
    """

    keys: tuple[str, ...]
    arrays: tuple[Kept, ...]
    words: dict[str, Any]

    @classmethod
    def of(cls, measurement: Measurement) -> "Layout":
        """Return the layout of a measurement."""
        named = {"": measurement.counts, **measurement.arrays}
        arrays = (Kept(n, str(x.dtype)[len("torch.") :], tuple(x.shape)) for n, x in named.items())
        words = {field.name: getattr(measurement, field.name) for field in WORDS}
        return cls(tuple(measurement.values), tuple(arrays), words)

    @cached_property
    def columns(self) -> dict[str, int]:
        """The places of single numbers in a row, by field or key."""
        return {name: place for place, name in enumerate((*HEAD, *self.keys))}

    @cached_property
    def size(self) -> int:
        """How many numbers a row has."""
        return len(self.columns) + sum(each.size for each in self.arrays)


class Growing:
    """A one-dimensional array with room for numbers to come."""

    def __init__(self, numbers: npt.NDArray[Any]) -> None:
        self.buffer = numbers

    def write(self, start: int, numbers: npt.NDArray[Any]) -> None:
        """Write numbers from a place on, before which nothing changes.

        On average over many numbers that are appended, each is copied a few times.
        """
        end = start + len(numbers)
        if end > len(self.buffer):
            larger = np.empty(end + end // 2, self.buffer.dtype)
            larger[:start] = self.buffer[:start]
            self.buffer = larger
        self.buffer[start:end] = numbers


class Rows:
    """Measurements in the order in which they were taken.

    Of more than 1,000 measurements every 2nd, 4th, 8th ... and the last keep their arrays, and all
    their single numbers. Memory once shared is never rewritten, and a measurement that is
    interrupted while it is appended is not there.

    Args:
        layouts: The layouts that occur.
        layout_of: The number of the layout of each measurement.
        numbers: The rows of all measurements, one after another.
        most: How many measurements keep their arrays at most, besides the last.

    Attributes:
        places: The places of the measurements of each stage.
    """

    def __init__(
        self,
        layouts: Sequence[Layout] = (),
        layout_of: Sequence[int] | npt.NDArray[Any] = (),
        numbers: Sequence[float] | npt.NDArray[Any] = (),
        most: int = MOST,
    ) -> None:
        self.most = most
        numbered, all_numbers = np.array(layout_of, np.int64), np.array(numbers, np.float64)
        sizes = np.array([each.size for each in layouts], np.int64)[numbered]
        self.layouts = list(layouts)
        self._layout_of, self._numbers = Growing(numbered), Growing(all_numbers)
        self._starts = Growing(sizes.cumsum() - sizes)
        self._lengths = len(numbered), len(all_numbers)
        self.places: dict[str, list[int]] = {}
        for stage in {each.words["stage"] for each in layouts}:
            of_stage = [each.words["stage"] == stage for each in layouts]
            self.places[stage] = np.flatnonzero(np.array(of_stage)[numbered]).tolist()
        self._whole: tuple[int, Measurement] | None = None  # the last one, with all its arrays

    def __len__(self) -> int:
        return self._lengths[0]

    @property
    def layout_of(self) -> npt.NDArray[np.int64]:
        """The number of the layout of each measurement, not copied."""
        return self._layout_of.buffer[: self._lengths[0]]

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where in the numbers the row of each measurement begins, not copied."""
        return self._starts.buffer[: self._lengths[0]]

    @property
    def numbers(self) -> npt.NDArray[np.float64]:
        """The rows of all measurements, one after another, not copied."""
        return self._numbers.buffer[: self._lengths[1]]

    @property
    def only_of_last(self) -> dict[str, Tensor]:
        """The arrays of the last measurement that are not kept in its row."""
        if not len(self):
            return {}
        kept = {each.name for each in self.layouts[self.layout_of[-1]].arrays}
        arrays = self.measurement(len(self) - 1).arrays
        return {name: array for name, array in arrays.items() if name not in kept}

    def every(self, length: int) -> int:
        """Every how many-th of so many measurements keeps its arrays: a power of two."""
        parts = max(-(-length // self.most), 1)
        return 1 << (parts - 1).bit_length()

    def append(self, measurement: Measurement) -> None:
        """Append a measurement; until the next one is appended it keeps all its arrays."""
        every = self.every(len(self) + 1)
        if every > self.every(len(self)):
            vars(self).update(vars(self.thinned(every)))  # in one step, or not at all
        place, start = self._lengths
        small = measurement.without_large_arrays()
        if place % every:
            small = replace(measurement, arrays={})
        layout = Layout.of(small)
        known = (n for n in reversed(range(len(self.layouts))) if self.layouts[n] == layout)
        number = next(known, len(self.layouts))
        single = [*(getattr(small, name) for name in HEAD), *small.values.values()]
        arrays = map(_numbers_of, (small.counts, *small.arrays.values()))
        row = np.concatenate([[float(each) for each in single], *arrays])
        if number == len(self.layouts):
            self.layouts.append(layout)
        self._layout_of.write(place, np.array([number]))
        self._starts.write(place, np.array([start]))
        self._numbers.write(start, row)
        for places in self.places.values():  # of one that was interrupted
            del places[bisect_left(places, place) :]
        self.places.setdefault(small.stage, []).append(place)
        self._whole = place, measurement
        self._lengths = place + 1, start + len(row)

    def thinned(self, every: int) -> "Rows":
        """Return the measurements, of which every n-th and the last keep their arrays."""
        layouts, bare = list(self.layouts), []
        for layout in self.layouts:
            without = replace(layout, arrays=layout.arrays[:1])  # the counts
            if without not in layouts:
                layouts.append(without)
            bare.append(layouts.index(without))
        drops = np.arange(len(self)) % every > 0
        layout_of = np.where(drops, np.array(bare, np.int64)[self.layout_of], self.layout_of)
        sizes = np.array([each.size for each in layouts], np.int64)
        before, after = sizes[self.layout_of], sizes[layout_of]
        within = np.arange(len(self.numbers)) - np.repeat(self.starts, before)
        kept = self.numbers[within < np.repeat(after, before)]
        thinned = Rows(layouts, layout_of, kept, self.most)
        thinned.keep_with_last(self.measurement(len(self) - 1).arrays if len(self) else {})
        return thinned

    def keep_with_last(self, arrays: Mapping[str, Tensor]) -> None:
        """Give the last measurement arrays back that are not kept in its row."""
        if len(self):
            last = self.measurement(len(self) - 1)
            self._whole = len(self) - 1, replace(last, arrays={**last.arrays, **arrays})

    def measurement(self, place: int) -> Measurement:
        """Return the measurement at a place."""
        if self._whole is not None and self._whole[0] == place:
            return self._whole[1]
        return self._read(place)

    def series(self, name: str) -> npt.NDArray[np.float64]:
        """Return a value of all measurements, by its key; NaN where there is none."""
        found = np.full(len(self), np.nan)
        for number, layout in enumerate(self.layouts):
            if name in layout.columns:
                of_layout = np.flatnonzero(self.layout_of == number)
                at = self.starts[of_layout] + layout.columns[name]
                found[of_layout] = self.numbers[at]
        return found

    def begins(self, other: "Rows") -> bool:
        """Whether the other rows begin with these, bit for bit but for arrays not kept since."""
        if len(other) < len(self):
            return False
        mine = self.thinned(other.every(len(other)))
        pairs = {*zip(mine.layout_of.tolist(), other.layout_of.tolist(), strict=False)}
        same = all(mine.layouts[one] == other.layouts[another] for one, another in pairs)
        theirs = other.numbers[: len(mine.numbers)].view(np.int64)
        return same and np.array_equal(mine.numbers.view(np.int64), theirs)

    def _read(self, place: int) -> Measurement:
        layout = self.layouts[self.layout_of[place]]
        start = int(self.starts[place])
        row = self.numbers[start : start + layout.size]
        epochs, step, seconds = row[: len(HEAD)].tolist()
        values = row[len(HEAD) : len(layout.columns)].tolist()
        arrays, at = {}, len(layout.columns)
        for each in layout.arrays:
            arrays[each.name] = _array_of(row[at : at + each.size], each)
            at += each.size
        return Measurement(
            # Lightning counts whole epochs in integers
            epochs_completed=int(epochs) if epochs.is_integer() else epochs,
            step=int(step),
            values=dict(zip(layout.keys, values, strict=True)),
            counts=arrays.pop(""),
            arrays=arrays,
            seconds=seconds,
            **layout.words,
        )


def _numbers_of(array: Tensor) -> npt.NDArray[np.float64]:
    """Return an array as numbers of 8 bytes: their bits if it has so many, else their values."""
    flat = array.resolve_conj().resolve_neg().flatten()
    eight = flat.view(torch.float64) if flat.dtype.itemsize >= 8 else flat.double()
    return eight.numpy()


def _array_of(numbers: npt.NDArray[np.float64], kept: Kept) -> Tensor:
    """Return the array of which `_numbers_of` made numbers."""
    dtype = getattr(torch, kept.dtype)
    eight = torch.from_numpy(numbers.copy())
    return (eight.view(dtype) if dtype.itemsize >= 8 else eight.to(dtype)).reshape(kept.shape)
