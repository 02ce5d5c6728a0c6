"""Quantities over epochs."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from lightning_nc.figures.canvas import (
    COLOURS,
    Target,
    canvas,
    entitle_axes,
    label_epochs,
    legend_below,
    logarithmic,
)
from lightning_nc.figures.time_axis import EPOCHS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def collapse_figure(
    epochs: Sequence[float],
    measures: Mapping[str, Sequence[float]],
    terminal: float | None,
    title: str,
    on: Target = None,
    time: str = EPOCHS,
) -> "Figure":
    """NC1 to NC4 over epochs; all fall towards 0 as classes collapse to a simplex.

    Args:
        epochs: Epochs completed at each measurement.
        measures: Values at each measurement, by label.
        terminal: First epoch without an error on the probe; not drawn if None, or after the last.
        title: Title of the figure.
        on: Where to draw, see `canvas`.
        time: Label of the horizontal axis, if it does not count epochs, see `TimeAxis`.
    """
    figure, (axes,) = canvas(1, (5.8, 4.0), on)
    for (name, values), colour in zip(measures.items(), COLOURS, strict=False):
        positive = [value if value > 0 else np.nan for value in values]  # 0 has no logarithm
        axes.plot(epochs, positive, "o-", color=colour, label=name, markersize=3, linewidth=1)
    logarithmic(axes.yaxis)
    label_epochs(axes, time)
    if terminal is not None and terminal <= max(epochs):
        label = "no error on the probe"
        axes.axvline(terminal, color="0.6", linestyle="--", linewidth=1, label=label, zorder=0)
        axes.axvspan(terminal, max(epochs), color="0.93", zorder=-1)
    axes.grid(True, which="major", alpha=0.3)
    legend_below(figure, axes, on)
    entitle_axes(axes, title)
    return figure


def over_epochs_figure(
    epochs: Sequence[float],
    values: Mapping[str, Sequence[float]],
    references: Mapping[str, float],
    label: str,
    title: str,
    on: Target = None,
    log: bool = False,
    time: str = EPOCHS,
) -> "Figure":
    """Curves over epochs, with horizontal lines at reference values.

    Args:
        epochs: Epochs completed at each measurement.
        values: Values at each measurement, by label.
        references: Reference values, by label.
        label: Label of the vertical axis.
        title: Title of the figure.
        on: Where to draw, see `canvas`.
        log: Whether the vertical axis is logarithmic, if any value is positive; what is not
            positive is left out then.
        time: Label of the horizontal axis, if it does not count epochs, see `TimeAxis`.
    """
    figure, (axes,) = canvas(1, (5.0, 3.6), on)
    log = log and any(value > 0 for curve in values.values() for value in curve)
    for (name, curve), colour in zip(values.items(), cycle(COLOURS), strict=False):
        shown = [value if value > 0 or not log else np.nan for value in curve]
        axes.plot(epochs, shown, "o-", color=colour, label=name, markersize=4)
    for (name, value), line in zip(references.items(), cycle((":", "--")), strict=False):
        if value > 0 or not log:
            axes.axhline(value, color="0.5", linestyle=line, label=name)
    if log:
        logarithmic(axes.yaxis)
    label_epochs(axes, time)
    axes.set_ylabel(label)
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize="small")
    entitle_axes(axes, title)
    return figure
