"""Measurements as tables, for loggers that keep them: D of the layers, and cosines."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.loggers import Lines, Table

if TYPE_CHECKING:
    from lightning_nc.callbacks.geometry_callback import GeometryCallback

_LINES = 10  # in one plot
_CLASSES = 32  # a row per pair of classes: with 100 they take half a second and 300 kB each time


def tables_of(callback: "GeometryCallback", measurement: Measurement) -> dict[str, Table | Lines]:
    """Tables of the last measurement of a callback, by tag.

    Where layers were measured, a table of D and the lines of ln D over depth, the first measurement
    to this one; of every matrix of cosines that is not too large, a table with a row per entry.
    """
    tables: dict[str, Table | Lines] = {}
    layers = callback.prefix("separation_layers")
    if any(key.startswith(layers) for key in measurement.values):
        past = [each for each in callback.history if each.stage == measurement.stage]
        tables[callback.prefix() + "layers"] = _layer_table(measurement, layers)
        lines = _law_lines(past, layers)
        if lines:
            title = f"ln D over depth, {callback.probe.key}"
            tables[callback.prefix() + "layers_by_epoch"] = Lines(title, "depth", lines)
    for name, array in measurement.arrays.items():
        if name.startswith("cosines_of_") and len(array) <= _CLASSES:
            tables[callback.prefix() + name] = _matrix_table(measurement, array)
    return tables


def _layer_table(measurement: Measurement, start: str) -> Table:
    rows = [
        (measurement.epochs_completed, key.removeprefix(start), depth, D)
        for depth, (key, D) in enumerate(_layers(measurement, start))
    ]
    return Table(("epochs_completed", "layer", "depth", "D"), rows)


def _law_lines(
    history: Sequence[Measurement], start: str
) -> dict[str, tuple[list[float], list[float]]]:
    """The logarithms of D, by epoch; of many measurements some, from the first to the last."""
    last = len(history) - 1
    shown = sorted({round(i * last / (_LINES - 1)) for i in range(_LINES)})
    lines = {}
    for measurement in (history[i] for i in shown):
        points = [
            (float(depth), math.log(D))
            for depth, (_, D) in enumerate(_layers(measurement, start))
            if 0 < D < math.inf
        ]
        if points:
            xs, ys = zip(*points, strict=True)
            lines[f"{measurement.epochs_completed:g} epochs"] = list(xs), list(ys)
    return lines


def _layers(measurement: Measurement, start: str) -> list[tuple[str, float]]:
    return [(key, value) for key, value in measurement.values.items() if key.startswith(start)]


def _matrix_table(measurement: Measurement, matrix: Tensor) -> Table:
    rows = [
        (measurement.epochs_completed, x, y, value)
        for y, row in enumerate(matrix.tolist())
        for x, value in enumerate(row)
    ]
    return Table(("epochs_completed", "x", "y", "value"), rows)
