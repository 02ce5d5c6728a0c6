"""What is measured, and what it means; nothing here knows a Trainer or a logger."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from lightning_nc.figures import over_epochs_figure
from lightning_nc.figures.tables import Lines, Table
from lightning_nc.measures.quantity import Panel, Quantity
from lightning_nc.measures.timeline import Timeline
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.measuring_pass import MeasuringPass
from lightning_nc.passes.request import Answer, Request

Drawing = Callable[[], Any]  # draws a matplotlib figure


class Evaluation(NamedTuple):
    """The numbers that a measure reads off an answer.

    Attributes:
        values: Scalars by the name of their quantity.
        layers: Scalars by layer, and with several per layer by ``layer/name``.
        arrays: Tensors for figures.
        notes: Sentences that say why values are undefined, by topic; each topic is told once.
        alerts: Sentences that need attention, by title; told once, also to W&B.
    """

    values: Mapping[str, float]
    layers: Mapping[str, float] = MappingProxyType({})
    arrays: Mapping[str, Tensor] = MappingProxyType({})
    notes: Mapping[str, str] = MappingProxyType({})
    alerts: Mapping[str, str] = MappingProxyType({})


class Measure(ABC):
    """A family of quantities: what it asks of a pass, what it reads off the answer, what it draws.

    A measure of your own has a family, a row per quantity, and a request. `evaluate` reads every
    row with its function ``of``, which is given the `Answer`; the rows of layers are given the
    geometry of each layer. Everything else (the callback, `measure`, loggers, dashboards, the
    report) follows from the rows.

    Attributes:
        family: The first part of its logged keys, without a slash.
        title: What the family is called on a page.
        question: What it answers, in one sentence.
        quantities: A row per number.
        layer_quantities: A row per number of each layer, logged as
            ``{family}_layers/{probe}/{layer}/{name}``; a single one without a name as
            ``{family}_layers/{probe}/{layer}``.
        passes: The pass that answers it. Measures of one pass on one probe share it.
        figures: The names of all figures and films that it may draw, for dashboards to lay out.

    Example:
        The class-distance normalised variance of every layer, and its fall from first to last:

        >>> from lightning_nc.functional.class_distance import (
        ...     class_distance_normalized_variance_of as cdnv,
        ... )
        >>> class LayerwiseVariance(Measure):
        ...     family = "cdnv"
        ...     title, question = "CDNV by layer", "At which depth do classes become compact?"
        ...     quantities = (
        ...         Quantity(
        ...             "fall", "", "Fall", "CDNV of the last layer by that of the first.", "0",
        ...             of=lambda answer: cdnv(list(answer.layers.values())[-1])
        ...             / cdnv(list(answer.layers.values())[0]),
        ...         ),
        ...     )
        ...     layer_quantities = (Quantity("", "CDNV", "CDNV", "Of this layer.", "0", of=cdnv),)
        ...
        ...     def request(self):
        ...         return Request(layers="blocks")
        >>> # Trainer(callbacks=[MeasureCallback(LayerwiseVariance(), every_n_epochs=10)])
    """

    family: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    quantities: ClassVar[tuple[Quantity, ...]]
    layer_quantities: ClassVar[tuple[Quantity, ...]] = ()
    passes: ClassVar[type[MeasuringPass]] = GeometryPass
    figures: ClassVar[tuple[str, ...]] = ("epochs",)

    @abstractmethod
    def request(self) -> Request:
        """What is asked of a pass."""

    def evaluate(self, answer: Answer) -> Evaluation:
        """Read every row off an answer."""
        return Evaluation(self.values_of(answer), self.values_of_layers(answer))

    def values_of(self, found: Any) -> dict[str, float]:
        """The values of all rows, given what their functions take."""
        rows = {row.name: None if row.of is None else row.of(found) for row in self.quantities}
        return {name: float(value) for name, value in rows.items() if value is not None}

    def values_of_layers(self, answer: Answer) -> dict[str, float]:
        """The values of all rows of layers, by layer in depth."""
        return {
            f"{layer}/{row.name}" if row.name else layer: float(row.of(geometry))  # type: ignore
            for layer, geometry in answer.layers.items()
            for row in self.layer_quantities
            if row.of is not None
        }

    def draw(self, timeline: Timeline) -> dict[str, Drawing]:
        """Figures of the last measurement: by name, a function without arguments that draws it.

        By default the first panel over epochs.
        """
        charts = [row.chart.panel for row in self.quantities if row.chart is not None]
        return {"epochs": partial(self._over_epochs, charts[0], timeline)} if charts else {}

    def draw_at_end(self, timeline: Timeline) -> dict[str, Drawing]:
        """The same of figures over the whole run, which are logged once, when training is over."""
        return {}

    def films(self, timeline: Timeline) -> dict[str, Callable[[Path], None]]:
        """Films over the whole run: by name, a function that writes a GIF to a path."""
        return {}

    def tables(self, timeline: Timeline) -> dict[str, Table | Lines]:
        """Tables of the last measurement by name, for loggers that keep them."""
        return {}

    def events(self, timeline: Timeline) -> dict[str, str]:
        """What has happened with the last measurement: sentences by title, logged as messages."""
        return {}

    def _over_epochs(self, panel: Panel, timeline: Timeline) -> Any:
        curves = {
            row.chart.label: timeline.over_epochs(row.name)
            for row in self.quantities
            if row.chart is not None and row.chart.panel == panel
        }
        title = timeline.title(panel.title)
        return over_epochs_figure(timeline.epochs, curves, dict(panel.references), "", title)
