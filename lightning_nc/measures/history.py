"""The measurements of a run, as a sequence; each is made when it is asked for."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import overload

import numpy as np

from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.rows import Rows


class History(Sequence[Measurement]):
    """Measurements in the order in which they were taken; what is measured later is not among them.

    Single values of all measurements are at `series`, which is fast. A measurement is made when it
    is asked for: to change it does not change the history.

    Args:
        rows: The measurements of a run.
        places: The places of some of them, in order; by default of all.
        length: The number of these places that count; by default all.

    Example:
        >>> import torch
        >>> rows = Rows()
        >>> for epoch in range(3):
        ...     values = {"nc/train/nc1": 1 / (1 + epoch)}
        ...     rows.append(Measurement(epoch, 10 * epoch, values, {}, torch.tensor([5, 5]), 0.1))
        >>> history = History(rows)
        >>> len(history), history[-1].step, [m.step for m in history[:2]]
        (3, 20, [0, 10])
        >>> history.series("nc/train/nc1")
        [1.0, 0.5, 0.3333333333333333]
    """

    def __init__(
        self, rows: Rows, places: Sequence[int] | None = None, length: int | None = None
    ) -> None:
        self._rows = rows
        self._places = range(len(rows)) if places is None else places
        self._length = len(self._places) if length is None else length

    def __len__(self) -> int:
        """The number of measurements."""
        return self._length

    @overload
    def __getitem__(self, place: int) -> Measurement: ...
    @overload
    def __getitem__(self, place: slice) -> "History": ...
    def __getitem__(self, place: int | slice) -> "Measurement | History":
        """The measurement at a place, or those of a slice."""
        if isinstance(place, slice):
            return History(self._rows, self._places[: self._length][place])
        return self._rows.measurement(self._places[range(self._length)[place]])

    def __eq__(self, other: object) -> bool:
        """Whether the other sequence has the same measurements, bit for bit."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        if len(other) != len(self) or not all(isinstance(one, Measurement) for one in other):
            return False
        mine, theirs = Rows(), Rows()
        for one, another in zip(self, other, strict=True):
            mine.append(one)
            theirs.append(another)
        return mine.begins(theirs)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return repr(list(self))

    def series(self, name: str) -> list[float]:
        """Return a value at each measurement; NaN where it was not measured.

        Args:
            name: Its key, or ``"epochs_completed"``, ``"step"`` or ``"seconds"``.
        """
        values: list[float] = self._rows.series(name)[self._places[: self._length]].tolist()
        return values

    def last_finite(self) -> dict[str, float]:
        """Return the last finite value under each key."""
        found = {}
        for key in dict.fromkeys(key for layout in self._rows.layouts for key in layout.keys):
            values = np.array(self.series(key))
            if (finite := np.flatnonzero(np.isfinite(values))).size:
                found[key] = float(values[finite[-1]])
        return found


def of_stage(rows: Rows, stage: str, until: int | None = None) -> History:
    """Return the measurements of a stage, all of them or those up to a place among all stages."""
    places = rows.places.get(stage, [])
    return History(rows, places, None if until is None else bisect_right(places, until))
