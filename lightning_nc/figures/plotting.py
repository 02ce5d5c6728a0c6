"""Figures as notebooks and scripts want them: known to pyplot, or on axes of the user's."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lightning_nc.figures.canvas import DPI, Target, has_figure_of_its_own, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# `Any` as in matplotlib's own `subplots`: ``Axes``, or an array of them
Plot: TypeAlias = "tuple[Figure, Any]"


def drawn(drawing: Callable[..., Any], *on: Target) -> "Figure":
    """Draw, and return the figure.

    Args:
        drawing: Draws on what it is given, see `canvas`.
        on: What it is given; nothing for a new figure.

    Raises:
        TypeError: If what it returns is no figure.
    """
    figure: Any = drawing(*on)
    if not (hasattr(figure, "savefig") or hasattr(figure, "subfigures")):
        raise TypeError(
            f"A figure's drawing returned {repr(figure)[:60]}, no matplotlib Figure: it must draw "
            "on what it is given and return the figure, see Measure.draw."
        )
    return figure


def forget(figure: "Figure") -> None:
    """Close a figure that a drawing made by pyplot, which would keep it open for ever."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)


def _of_axes(figure: Any, ax: Any) -> Any:
    """Return the figure of a drawing.

    Raises:
        ValueError: If the axes are not part of it.
    """
    own = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()[0].figure
    if figure is own or figure is own.figure:  # axes can be part of a figure in a figure
        return figure
    forget(figure)
    raise ValueError(
        "The drawing made a figure of its own, so it cannot be drawn on ax=: it must draw on what "
        "it is given, see Measure.draw. Leave out ax=, or change the drawing."
    )


def plotted(drawing: Callable[..., Any], ax: Target = None) -> Plot:
    """Draw, and return the figure with its axes, as the ``plot`` of torchmetrics does.

    A new figure is one of pyplot's, so that notebooks show it without being asked to, and
    ``plt.show()`` does in a script.

    Args:
        drawing: Draws on what it is given, see `canvas`.
        ax: Axes to draw on, as many as the figure has; None for a new figure.

    Returns:
        The figure, and its axes: ``Axes``, or an array of them if the figure has several. Colour
        bars are part of these.

    Raises:
        TypeError: If the drawing returns no figure.
        ValueError: If what is given is no axes, or another number of them, or if the drawing made
            a figure of its own although there are axes to draw on.
    """
    if ax is not None:
        if has_figure_of_its_own(ax):
            kind = type(ax).__name__
            raise ValueError(f"ax must be axes, got a {kind}. Give its axes: ax=figure.subplots().")
        return _of_axes(drawn(drawing, ax), ax), ax
    require_matplotlib()
    from matplotlib import pyplot as plt

    empty = plt.figure(dpi=DPI)
    try:
        figure = drawn(drawing, empty)
    except BaseException:
        plt.close(empty)
        raise
    if figure is not empty:  # it made one of its own
        plt.close(empty)
    all_axes = figure.axes  # colour bars are part of these
    return figure, all_axes[0] if len(all_axes) == 1 else np.array(all_axes)
