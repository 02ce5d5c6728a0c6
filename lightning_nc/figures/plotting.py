"""Figures as notebooks and scripts want them: known to pyplot, or on axes of the user's."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lightning_nc.figures.canvas import DPI, Target, has_figure_of_its_own, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# `Any` as in matplotlib's own `subplots`: ``Axes``, or an array of them
Plot: TypeAlias = "tuple[Figure, Any]"


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
        ValueError: If what is given is no axes, or another number of them.
    """
    if ax is not None:
        if has_figure_of_its_own(ax):
            kind = type(ax).__name__
            raise ValueError(f"ax must be axes, got a {kind}. Give its axes: ax=figure.subplots().")
        return drawing(ax), ax
    require_matplotlib()
    from matplotlib import pyplot as plt

    figure = plt.figure(dpi=DPI)
    try:
        drawing(figure)
    except BaseException:
        plt.close(figure)
        raise
    all_axes = figure.axes  # colour bars are part of these
    return figure, all_axes[0] if len(all_axes) == 1 else np.array(all_axes)
