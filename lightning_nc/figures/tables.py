"""Tables and lines, for loggers that draw charts themselves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lightning_nc.figures.time_axis import TimeAxis

_LINES = 10  # most lines in one plot
_CLASSES = 32  # most classes of a matrix; with 100, each table takes half a second and 300 kB


class Table(NamedTuple):
    """Rows under named columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Lines(NamedTuple):
    """Lines in one plot.

    Attributes:
        title: Title of the plot.
        x_name: Label of the horizontal axis.
        lines: Horizontal and vertical coordinates of each line, by label.
    """

    title: str
    x_name: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


def layer_table(epochs_completed: float, values: Mapping[str, float], name: str) -> Table:
    """Return a table with a row per layer.

    Args:
        epochs_completed: Epochs completed at the measurement.
        values: The value of each layer, in order of depth.
        name: Column name of the values.
    """
    rows = [(epochs_completed, layer, t, value) for t, (layer, value) in enumerate(values.items())]
    return Table(("epochs_completed", "layer", "depth", name), rows)


def logarithms_over_depth(
    title: str, time: TimeAxis, values: Sequence[Sequence[float]]
) -> Lines | None:
    """Return logarithms of positive values over depth, with a line for up to ten measurements.

    Args:
        title: Title of the plot.
        time: The time of each measurement.
        values: For each measurement, one value per layer, in order of depth.

    Returns:
        The lines; None if there is nothing to draw.
    """
    last = len(values) - 1
    epochs, is_epochs = time.places[0], time.unit == "epoch"
    names = [f"{epoch:g} epochs" for epoch in epochs] if is_epochs else time.words()
    lines = {}
    for i in sorted({round(i * last / (_LINES - 1)) for i in range(_LINES)}):
        points = [(float(t), math.log(D)) for t, D in enumerate(values[i]) if 0 < D < math.inf]
        if points:
            xs, ys = zip(*points, strict=True)
            lines[names[i]] = list(xs), list(ys)
    return Lines(title, "depth", lines) if lines else None


def cosine_tables(
    epochs_completed: float, arrays: Mapping[str, Tensor], classes: Sequence[str]
) -> dict[str, Table | Lines]:
    """Return a table per matrix of cosines of up to 32 classes, with a row per entry.

    Args:
        epochs_completed: Epochs completed at the measurement.
        arrays: Arrays of a measurement; those named ``cosines_of_...`` have shape ``(K, K)``.
        classes: The name of each class; nothing to number them.

    Returns:
        Tables by the name of the matrix.
    """
    return {
        name: Table(
            ("epochs_completed", "x", "y", "value"),
            [
                (epochs_completed, x, y, value)
                for y, row in zip(classes or range(len(matrix)), matrix.tolist(), strict=True)
                for x, value in zip(classes or range(len(matrix)), row, strict=True)
            ],
        )
        for name, matrix in arrays.items()
        if name.startswith("cosines_of_") and len(matrix) <= _CLASSES
    }
