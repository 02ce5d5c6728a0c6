"""The measurements of one measure on one probe, in order, from which figures are drawn."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lightning_nc.figures.time_axis import TimeAxis, time_axis
from lightning_nc.measures.history import History
from lightning_nc.measures.measurement import Measurement


class Timeline(NamedTuple):
    """Measurements of one stage, up to the one that is drawn.

    Attributes:
        family: The first part of the keys.
        probe: The second part of the keys, the name of the probe.
        measurements: One or more, in the order in which they were taken.
        of_training_data: Whether the probe is part of the data that the network is trained on.
    """

    family: str
    probe: str
    measurements: Sequence[Measurement]
    of_training_data: bool = False

    @property
    def last(self) -> Measurement:
        """The measurement that is drawn."""
        return self.measurements[-1]

    @property
    def epochs(self) -> list[float]:
        """Epochs completed at each measurement."""
        return self._series("epochs_completed")

    @property
    def time(self) -> TimeAxis:
        """Where the measurements stand along the axis of time, at distinct places."""
        return time_axis([self.epochs], [self._series("step")])

    def value(self, name: str) -> float:
        """A quantity at the last measurement; NaN if it was not measured."""
        return self.last.values.get(f"{self.family}/{self.probe}/{name}", math.nan)

    def over_epochs(self, name: str) -> list[float]:
        """A quantity at each measurement; NaN where it was not measured."""
        return self._series(f"{self.family}/{self.probe}/{name}")

    @property
    def layers(self) -> list[str]:
        """The layers that have values, in order of depth."""
        start = f"{self.family}_layers/{self.probe}/"
        return [key.removeprefix(start) for key in self.last.values if key.startswith(start)]

    def of_layers(self, measurement: Measurement) -> list[float]:
        """The values of `layers` at a measurement; NaN where they were not measured."""
        start = f"{self.family}_layers/{self.probe}/"
        return [measurement.values.get(start + layer, math.nan) for layer in self.layers]

    def layers_with(self, name: str) -> list[str]:
        """The layers that have a quantity of this name, where a layer has several."""
        return [each.removesuffix(f"/{name}") for each in self.layers if each.endswith(f"/{name}")]

    def layers_over_epochs(self, name: str = "") -> list[list[float]]:
        """The values of layers at each measurement; NaN where they were not measured.

        Args:
            name: A quantity, for the layers of `layers_with`; by default for those of `layers`.
        """
        start = f"{self.family}_layers/{self.probe}/"
        keys = [f"{layer}/{name}" for layer in self.layers_with(name)] if name else self.layers
        return [*map(list, zip(*(self._series(start + key) for key in keys), strict=True))]

    def title(self, what: str) -> str:
        """The title of a figure over epochs: what it shows, and the probe."""
        return f"{what}, {self.probe}"

    def title_of_last(self, what: str) -> str:
        """The title of a figure of the last measurement: what it shows, the probe, and when.

        Without a Trainer nothing is known of when.
        """
        without = self.last.stage == "measure"
        return self.title(what) if without else f"{self.title(what)}, {self.last.when}"

    def _series(self, name: str) -> list[float]:
        """A field of each measurement, or the value under a key."""
        if isinstance(self.measurements, History):
            return self.measurements.series(name)
        return [vars(each).get(name, each.values.get(name, math.nan)) for each in self.measurements]
