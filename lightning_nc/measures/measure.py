"""The base of all measures: what is measured and what it means, without a Trainer or a logger."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from lightning_nc.figures import over_epochs_figure
from lightning_nc.figures.canvas import Target, canvas
from lightning_nc.figures.tables import Lines, Table
from lightning_nc.measures.quantity import Curve, Panel, Quantity, charts_of_rows
from lightning_nc.measures.timeline import Timeline
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.measuring_pass import MeasuringPass
from lightning_nc.passes.request import Answer, DoesNotApply, Request

# draws on what it is given, see `figures.canvas`, or in a new figure; returns the figure
Drawing = Callable[..., Any]


def drawing_of(drawings: Mapping[str, Drawing], name: str | None, known: Iterable[str]) -> Drawing:
    """Return the drawing of a name; without a name, the first.

    Args:
        drawings: Functions that draw, by name.
        name: The name, or None.
        known: The names of figures that are drawn where there is something to draw.

    Raises:
        ValueError: If there is none of that name, or none at all.
    """
    if not drawings:
        raise ValueError(
            "There is no figure: no row of `quantities` has a chart, and rows of layers have no "
            "figure by themselves. Give a row chart=Curve(Panel(...), ...), or the measure a "
            "draw()."
        )
    if name is not None and name not in drawings:
        why = " here, since what it shows was not measured or is undefined" * (name in known)
        raise ValueError(f"There is no figure '{name}'{why}; choose from {', '.join(drawings)}.")
    return drawings[name if name is not None else next(iter(drawings))]


class Evaluation(NamedTuple):
    """The values that a measure computes from an answer.

    Attributes:
        values: Scalars by name of the quantity.
        layers: Scalars by layer, or by ``layer/name`` where a layer has several.
        arrays: Tensors for figures.
        notes: Sentences saying why values are undefined, by topic; each topic is reported once.
        alerts: Sentences on what needs attention, by title; reported once, also to W&B.
    """

    values: Mapping[str, float]
    layers: Mapping[str, float] = MappingProxyType({})
    arrays: Mapping[str, Tensor] = MappingProxyType({})
    notes: Mapping[str, str] = MappingProxyType({})
    alerts: Mapping[str, str] = MappingProxyType({})


class Measure(ABC):
    """A family of quantities: what it requests from a pass, computes from the answer, and draws.

    A measure of your own has a family, a row per quantity, and a request. `evaluate` computes every
    row with its function ``of``, which receives the `Answer`; the rows of layers receive the
    geometry of each layer. Everything else (the callback, `measure`, loggers, dashboards, the
    report) follows from the rows.

    Attributes:
        family: The first part of its logged keys, without a slash.
        title: Title of the family on a page.
        question: The question that it answers, in one sentence.
        quantities: A row per quantity.
        layer_quantities: A row per quantity of each layer, of the class or of the object, logged as
            ``{family}_layers/{probe}/{layer}/{name}``; a single one without a name as
            ``{family}_layers/{probe}/{layer}``.
        passes: The kind of pass that answers it. Measures of one kind on one probe share a pass.
        figures: The names of all figures and films that it may draw, for dashboards.

    Example:
        The class-distance normalised variance of every layer, and its ratio of last to first:

        >>> from lightning_nc.functional.class_distance import (
        ...     class_distance_normalized_variance_of as cdnv,
        ... )
        >>> class LayerwiseVariance(Measure):
        ...     family = "cdnv"
        ...     title, question = "CDNV by layer", "At which depth do classes become compact?"
        ...     quantities = (
        ...         Quantity(
        ...             "fall", "", "Fall", "CDNV of the last layer over CDNV of the first.", "0",
        ...             of=lambda answer: cdnv(list(answer.layers.values())[-1])
        ...             / cdnv(list(answer.layers.values())[0]),
        ...         ),
        ...     )
        ...     layer_quantities = (Quantity("", "CDNV", "CDNV", "At this layer.", "0", of=cdnv),)
        ...
        ...     def request(self):
        ...         return Request(layers="blocks")
        >>> # Trainer(callbacks=[MeasureCallback(LayerwiseVariance(), every_n_epochs=10)])
    """

    family: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    quantities: ClassVar[tuple[Quantity, ...]]
    layer_quantities: tuple[Quantity, ...] = ()
    passes: ClassVar[type[MeasuringPass]] = GeometryPass
    figures: ClassVar[tuple[str, ...]] = ("epochs",)

    @abstractmethod
    def request(self) -> Request:
        """Return what the measure requests from a pass."""

    def evaluate(self, answer: Answer) -> Evaluation:
        """Compute every row from an answer."""
        return Evaluation(self.values_of(answer), self.values_of_layers(answer.layers))

    def values_of(self, found: Any) -> dict[str, float]:
        """The values of all rows, computed from what their functions ``of`` receive."""
        rows = {row.name: self._value_of(row, found) for row in self.quantities}
        return {name: value for name, value in rows.items() if value is not None}

    def values_of_layers(self, layers: Mapping[str, Any]) -> dict[str, float]:
        """The values of all rows of layers, by layer in order of depth.

        Args:
            layers: What the functions ``of`` of these rows receive, by layer.
        """
        rows = {
            f"{layer}/{row.name}" if row.name else layer: self._value_of(row, found, layer)
            for layer, found in layers.items()
            for row in self.layer_quantities
        }
        return {name: value for name, value in rows.items() if value is not None}

    def draw(self, timeline: Timeline) -> dict[str, Drawing]:
        """Figures of the last measurement: functions that draw them, by name.

        By default, all panels over epochs, side by side.

        Args:
            timeline: The measurements up to the one that is drawn. It has the values of a quantity
                (``over_epochs(name)``, ``value(name)``), of layers (``layers``,
                ``of_layers(timeline.last)``), and the arrays of the last one
                (``timeline.last.arrays``).

        Returns:
            Functions of one argument ``on``, None by default, that draw on it and return the
            matplotlib ``Figure``. It is an empty figure for `plot`, the axes that a user gives to
            ``plot(ax=...)``, and None for loggers, where the function makes a figure.
            ``lightning_nc.figures.canvas.canvas(columns, size, on)`` returns figure and axes for
            all three.
        """
        charts = charts_of_rows(self.quantities)
        return {"epochs": partial(_draw_over_epochs, charts, timeline)} if charts else {}

    def draw_at_end(self, timeline: Timeline) -> dict[str, Drawing]:
        """Figures of the whole run, logged once when training is over; as in `draw`."""
        return {}

    def films(self, timeline: Timeline) -> dict[str, Callable[[Path], None]]:
        """Films of the whole run: functions that write a GIF to a path, by name."""
        return {}

    def tables(self, timeline: Timeline) -> dict[str, Table | Lines]:
        """Tables of the last measurement by name, for loggers that store tables."""
        return {}

    def events(self, timeline: Timeline) -> dict[str, str]:
        """What happened at the last measurement: sentences by title, logged as messages."""
        return {}

    def _value_of(self, row: Quantity, found: Any, layer: str | None = None) -> float | None:
        """The value of a row; None if it has none.

        Raises:
            ValueError: If its function ``of`` fails, or returns something other than a number.
        """
        try:
            value = None if row.of is None else row.of(found)
            return None if value is None else float(value)
        except DoesNotApply:
            raise
        except Exception as error:
            where = "" if layer is None else f" at layer '{layer}'"
            raise ValueError(
                f"The quantity '{row.name or row.label}' of {type(self).__name__} cannot be "
                f"computed{where}: {type(error).__name__}: {error}. Its function of= must return "
                "one number, or None if there is nothing to log."
            ) from error


def _draw_over_epochs(
    charts: Mapping[Panel, Mapping[str, Curve]], timeline: Timeline, on: Target = None
) -> Any:
    figure, all_axes = canvas(len(charts), (5.0 * len(charts), 3.6), on)
    time = timeline.time
    for (panel, curves), axes in zip(charts.items(), all_axes, strict=True):
        values = {curve.label: timeline.over_epochs(name) for name, curve in curves.items()}
        lines, title = dict(panel.references), timeline.title(panel.title)
        over_epochs_figure(
            time.places[0], values, lines, "", title, axes, panel.logarithmic, time.label
        )
    return figure
