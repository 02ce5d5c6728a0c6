"""The measurements of a run, as a sequence; each is made when it is asked for."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import overload

import numpy as np

from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.rows import Rows
from lightning_nc.measures.shown import Frame, frame_of, html_table, quantities_of, rounded

_ROWS, _ENDS = 20, 8  # of more rows, an HTML table has so many of the first and of the last


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
        mine, theirs = Rows(most=len(self) + 1), Rows(most=len(self) + 1)  # with all arrays
        for one, another in zip(self, other, strict=True):
            mine.append(one)
            theirs.append(another)
        return mine.begins(theirs)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        if not len(self):
            return "<History of 0 measurements>"
        many = f"{len(self)} measurement{'s' * (len(self) != 1)}"
        return f"<History of {many}, the last {repr(self[-1]).partition(' ')[2]}"

    def _repr_html_(self) -> str:
        """The quantities of all measurements as a table, in a notebook, without those of layers."""
        places = range(len(self))
        shown = [*places] if len(self) <= _ROWS else [*places[:_ENDS], *places[-_ENDS:]]
        keys = quantities_of(self[-1].values) if len(self) else []
        series = [self.series(name) for name in ("epochs_completed", *keys)]
        rows = [[rounded(values[place], 6) for values in series] for place in shown]
        if len(shown) < len(self):
            rows.insert(_ENDS, ["…"] * len(series))
        return html_table(rows, ["epochs completed", *keys])

    def to_frame(self, tidy: bool = False) -> Frame:
        """Return the measurements as a pandas ``DataFrame``.

        Args:
            tidy: Whether each value has a row, with the columns ``key`` and ``value``. By default
                each measurement has a row, and each key a column.

        Returns:
            The frame; its first columns are ``epochs_completed``, ``step``, ``stage`` and
            ``seconds``.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        about = ("epochs_completed", "step", "stage", "seconds")
        rows = [({name: getattr(each, name) for name in about}, each.values) for each in self]
        if not tidy:
            return frame_of([head | values for head, values in rows])
        pairs = [(head, pair) for head, values in rows for pair in values.items()]
        return frame_of([head | {"key": key, "value": value} for head, (key, value) in pairs])

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
