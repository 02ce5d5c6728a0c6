"""Where measurements stand along the axis of time: at distinct places, by what is known of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lightning_nc.wording import digits

EPOCHS = "epochs completed"


class TimeAxis(NamedTuple):
    """The axis of one series of measurements, or of several that share it.

    Attributes:
        unit: What is counted: ``"epoch"``, ``"step"`` or ``"measurement"``.
        places: The place of each measurement, for each series.
    """

    unit: str
    places: list[list[float]]

    @property
    def label(self) -> str:
        """The label of the axis."""
        return EPOCHS if self.unit == "epoch" else self.unit

    def words(self) -> list[str]:
        """The place of each measurement of the first series in words."""
        return [f"{self.unit} {digits(place)}" for place in self.places[0]]


def time_axis(epochs: Sequence[Sequence[float]], steps: Sequence[Sequence[float]]) -> TimeAxis:
    """Return an axis on which no two measurements of a series have the same place.

    Epochs completed, as a rule. Within a first epoch of unknown length these are 0 throughout: then
    the steps, or if these are not distinct, the numbers of the measurements.

    Args:
        epochs: Epochs completed at each measurement, for each series.
        steps: The step of each measurement, for each series; NaN if unknown.

    Example:
        >>> time_axis([[0, 0.5, 1]], [[0, 9, 19]]).label
        'epochs completed'
        >>> time_axis([[0, 0, 0, 1]], [[0, 9, 19, 29]])
        TimeAxis(unit='step', places=[[0, 9, 19, 29]])
    """
    for unit, places in (("epoch", epochs), ("step", steps)):
        if all(len(set(each)) == len(each) and all(map(math.isfinite, each)) for each in places):
            return TimeAxis(unit, [list(each) for each in places])
    return TimeAxis("measurement", [list(range(1, len(each) + 1)) for each in epochs])
