"""What the laws of values along depth share: the fitted line, its tables and figure over epochs."""

from typing import Any

import torch
from torch import Tensor

from lightning_nc.figures import layers_over_epochs_figure
from lightning_nc.figures.canvas import Target
from lightning_nc.figures.tables import Lines, Table, layer_table, logarithms_over_depth
from lightning_nc.functional.separation import SeparationLaw, separation_law
from lightning_nc.measures.timeline import Timeline


def fitted_law(values: Tensor) -> SeparationLaw:
    """The line through the logarithms of a value of each layer; NaN for a single layer."""
    if len(values) > 1:
        return separation_law(values)
    return SeparationLaw(*values.new_full((4,), torch.nan))


def law_tables(timeline: Timeline, symbol: str) -> dict[str, Table | Lines]:
    """Tables of a value by layer, and of its logarithm over depth for every measurement.

    Args:
        timeline: The measurements; each has one value per layer.
        symbol: The symbol of the value.
    """
    values = dict(zip(timeline.layers, timeline.of_layers(timeline.last), strict=True))
    tables: dict[str, Table | Lines] = {
        "layers": layer_table(timeline.last.epochs_completed, values, symbol)
    }
    title = timeline.title(f"ln {symbol} over depth")
    lines = logarithms_over_depth(title, timeline.time, timeline.layers_over_epochs())
    return tables if lines is None else tables | {"layers_by_epoch": lines}


def draw_by_epoch(timeline: Timeline, title: str, label: str, on: Target = None) -> Any:
    """Draw a value against depth, a line per measurement.

    Args:
        timeline: The measurements; each has one value per layer.
        title: What the figure shows.
        label: Label of the value.
        on: Where to draw, see `canvas`.
    """
    values = list(torch.tensor(timeline.layers_over_epochs(), dtype=torch.float64))
    names, time = timeline.layers, timeline.time
    return layers_over_epochs_figure(
        names, time.places[0], values, timeline.title(title), label, on, time.label
    )
