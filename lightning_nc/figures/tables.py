"""Tables and lines, for loggers that draw them by themselves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

_LINES = 10  # in one plot
_CLASSES = 32  # a row per pair of classes: with 100 they take half a second and 300 kB each time


class Table(NamedTuple):
    """Rows under named columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Lines(NamedTuple):
    """Lines in one plot.

    Attributes:
        title: Above the plot.
        x_name: What the horizontal axis shows.
        lines: Horizontal and vertical coordinates by label.
    """

    title: str
    x_name: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


def layer_table(epochs_completed: float, values: Mapping[str, float], name: str) -> Table:
    """A row per layer.

    Args:
        epochs_completed: When the values were measured.
        values: One for each layer, in depth.
        name: What the values are called.
    """
    rows = [(epochs_completed, layer, t, value) for t, (layer, value) in enumerate(values.items())]
    return Table(("epochs_completed", "layer", "depth", name), rows)


def logarithms_over_depth(
    title: str, epochs: Sequence[float], values: Sequence[Sequence[float]]
) -> Lines | None:
    """The logarithms of positive values over depth: a line per epoch, of many epochs some.

    Args:
        title: Above the plot.
        epochs: Epochs completed.
        values: At each of them, one value for each layer, in depth.

    Returns:
        The lines; None if there is nothing to draw.
    """
    last = len(epochs) - 1
    lines = {}
    for i in sorted({round(i * last / (_LINES - 1)) for i in range(_LINES)}):
        points = [(float(t), math.log(D)) for t, D in enumerate(values[i]) if 0 < D < math.inf]
        if points:
            xs, ys = zip(*points, strict=True)
            lines[f"{epochs[i]:g} epochs"] = list(xs), list(ys)
    return Lines(title, "depth", lines) if lines else None


def matrix_tables(epochs_completed: float, matrices: Mapping[str, Tensor]) -> dict[str, Table]:
    """A row per entry of each matrix, if it is not too large.

    Args:
        epochs_completed: When they were measured.
        matrices: Of shape ``(K, K)``, by name.
    """
    return {
        name: Table(
            ("epochs_completed", "x", "y", "value"),
            [
                (epochs_completed, x, y, value)
                for y, row in enumerate(matrix.tolist())
                for x, value in enumerate(row)
            ],
        )
        for name, matrix in matrices.items()
        if len(matrix) <= _CLASSES
    }
