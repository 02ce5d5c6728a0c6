"""Quantities over epochs."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_nc.figures.canvas import (
    COLOURS,
    Target,
    canvas,
    entitle_axes,
    label_epochs,
    legend,
    legend_below,
    logarithmic,
)
from lightning_nc.figures.time_axis import EPOCHS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = 60  # points up to which each has a marker
_LOOK = {"markersize": 3, "linewidth": 1}
ZERO = "exact-zero"  # id of the markers of zeros on logarithmic axes


def draw_curve(
    axes: Any, places: Sequence[float], values: Sequence[float], style: str, **look: Any
) -> None:
    """Draw a curve; on a logarithmic axis, zeros are hollow markers at the bottom edge.

    Many points have no marker each, which would cover the line and whether it is dashed.

    Args:
        axes: Matplotlib axes.
        places: Where the values stand along the horizontal axis.
        values: The values; what is not finite is left out.
        style: Style of the line; ``"none"`` for points alone.
        look: Its colour, label, and sizes.
    """
    x, y = np.array(places, dtype=float), np.array(values, dtype=float)
    y = np.where(np.isfinite(y), y, np.nan)
    if axes.get_yscale() == "log":
        zero = y == 0
        if zero.any():
            at_bottom = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 5}
            hollow = {"markerfacecolor": "white", "linestyle": "none", "marker": "o"}
            hollow |= {"color": look["color"], "markersize": look["markersize"]}
            axes.plot(x[zero], np.zeros(zero.sum()), gid=ZERO, **at_bottom, **hollow)
        y = np.where(y > 0, y, np.nan)
    marked = _marked(np.isfinite(y), style != "none")
    axes.plot(x, y, linestyle=style, marker="o", markevery=marked, **look)


def _marked(known: "np.ndarray[Any, Any]", has_line: bool) -> list[int]:
    """Which points of a curve have a marker: all of few, else those that no line reaches."""
    if has_line and len(known) > _MARKERS:
        beside = np.concatenate(([False], known, [False]))
        known = known & ~beside[:-2] & ~beside[2:]
    return np.nonzero(known)[0].tolist()


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
        measures: Values at each measurement, by label; a quantity without any is left out.
        terminal: First epoch without an error on the probe; not drawn if None, or after the last.
        title: Title of the figure.
        on: Where to draw, see `canvas`.
        time: Label of the horizontal axis, if it does not count epochs, see `TimeAxis`.
    """
    figure, (axes,) = canvas(1, (5.8, 4.0), on)
    logarithmic(axes.yaxis)
    for (name, values), colour in zip(measures.items(), COLOURS, strict=False):
        if np.isfinite(values).any():
            label = f"{name} (hollow: 0)" if 0 in values else name
            draw_curve(axes, epochs, values, "-", color=colour, label=label, **_LOOK)
    label_epochs(axes, time)
    if terminal is not None and terminal <= max(epochs):
        label = "probe fitted without error"
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
        values: Values at each measurement, by label; a curve without any is left out.
        references: Reference values, by label.
        label: Label of the vertical axis.
        title: Title of the figure.
        on: Where to draw, see `canvas`.
        log: Whether the vertical axis is logarithmic, if any value is positive; see `draw_curve`.
        time: Label of the horizontal axis, if it does not count epochs, see `TimeAxis`.
    """
    figure, (axes,) = canvas(1, (5.0, 3.6), on)
    if log and any(value > 0 for curve in values.values() for value in curve):
        logarithmic(axes.yaxis)
    for (name, curve), colour in zip(values.items(), cycle(COLOURS), strict=False):
        if np.isfinite(curve).any():
            draw_curve(axes, epochs, curve, "-", color=colour, label=name, markersize=4)
    for (name, value), line in zip(references.items(), cycle((":", "--")), strict=False):
        if value > 0 or axes.get_yscale() != "log":
            axes.axhline(value, color="0.5", linestyle=line, label=name)
    label_epochs(axes, time)
    axes.set_ylabel(label)
    axes.grid(True, alpha=0.3)
    legend(axes)
    entitle_axes(axes, title)
    return figure
