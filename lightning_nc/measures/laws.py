"""What the laws of values along depth share: the fitted line, its tables and figure over epochs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.figures import layers_over_epochs_figure
from lightning_nc.figures.canvas import Target
from lightning_nc.figures.tables import Lines, Table, layer_table, logarithms_over_depth
from lightning_nc.functional.separation import SeparationLaw, separation_law
from lightning_nc.measures.timeline import Timeline


class FittedLaw(NamedTuple):
    """What the rows of a law are computed from.

    Attributes:
        values: A value of each layer, in order of depth.
        law: The line through their logarithms; NaN for a single layer.
    """

    values: Tensor
    law: SeparationLaw


def fitted_law(values: Tensor) -> FittedLaw:
    """The law of a value of each layer."""
    if len(values) > 1:
        return FittedLaw(values, separation_law(values))
    return FittedLaw(values, SeparationLaw(*values.new_full((4,), torch.nan)))


def law_tables(timeline: Timeline, symbol: str) -> dict[str, Table | Lines]:
    """Tables of a value by layer, and of its logarithm over depth for every measurement."""
    values = dict(zip(timeline.layers, timeline.of_layers(timeline.last), strict=True))
    tables: dict[str, Table | Lines] = {
        "layers": layer_table(timeline.last.epochs_completed, values, symbol)
    }
    title = timeline.title(f"ln {symbol} over depth")
    lines = logarithms_over_depth(title, timeline.time, timeline.layers_over_epochs())
    return tables if lines is None else tables | {"layers_by_epoch": lines}


def draw_by_epoch(
    timeline: Timeline, title: str, label: str, on: Target = None, name: str = ""
) -> Any:
    """Draw a value against depth, a line per measurement.

    Args:
        timeline: The measurements.
        title: What the figure shows.
        label: Label of the value.
        on: Where to draw, see `canvas`.
        name: The quantity, where a layer has several.
    """
    values = list(torch.tensor(timeline.layers_over_epochs(name), dtype=torch.float64))
    names, time = timeline.layers_with(name) if name else timeline.layers, timeline.time
    return layers_over_epochs_figure(
        names, time.places[0], values, timeline.title(title), label, on, time.label
    )
