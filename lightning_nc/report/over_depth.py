"""Values against depth, as SVG to embed in a page."""

from collections.abc import Mapping

import numpy as np
import torch

from lightning_nc.figures import draw_law, layers_over_epochs_figure
from lightning_nc.figures.canvas import in_legend, label_depth, logarithmic
from lightning_nc.figures.time_axis import time_axis
from lightning_nc.report.runs import Series
from lightning_nc.report.svg import (
    FONT,
    HIGH,
    WIDTH,
    legend_above,
    look_of_run,
    plain,
    short_labels,
    small_figure,
    small_letters,
    svg_of,
)


def depth_svg(series: Series, label: str, law: bool) -> str:
    """Draw values against depth, one line per measurement, from dark to light.

    Args:
        series: Measurements of one run.
        label: Label of the values.
        law: Whether to fit a line to the logarithms of the last measurement, which needs layers in
            a known order of depth.

    Returns:
        The SVG.
    """
    D = torch.tensor(list(series.layers.values()), dtype=torch.double).mT
    D = D.where(D > 0, torch.nan)
    time = time_axis([series.epochs], [series.steps])
    names, (places,) = list(series.layers), time.places
    figure = layers_over_epochs_figure(names, places, list(D), "", label, time=time.label)
    figure.set_size_inches(WIDTH, HIGH)
    (axes,) = figure.axes
    (bar,) = axes.child_axes
    plain(axes)
    small_letters(bar)
    if law and series.in_depth:
        draw_law(axes, D[-1])
        for text in axes.texts:  # above the axes, since no corner of them is free in every run
            one_line = "last: " + text.get_text().replace("\n", ", ")
            text.set(text=one_line, position=(0, 1.02), ha="left", va="bottom", fontsize=FONT)
    return svg_of(figure)


def depth_of_runs_svg(runs: Mapping[str, Series], label: str) -> str:
    """Draw values against depth at the last measurement of each run.

    Returns:
        The SVG.
    """
    from lightning_nc.figures.layout import fit_words

    figure, axes = small_figure(HIGH)
    logarithmic(axes.yaxis)
    named = short_labels(runs)
    for number, (run, series) in enumerate(runs.items()):
        D = np.array([of_layer[-1] for of_layer in series.layers.values()])
        colour, style = look_of_run(number)
        look = {"color": colour, "marker": "o", "markersize": 4, "label": in_legend(named[run])}
        axes.plot(np.where(D > 0, D, np.nan), style, **look)
    names = {tuple(series.layers) for series in runs.values()}
    if len(names) == 1:
        label_depth(axes, names.pop())
    else:
        axes.set_xlabel("layers (they differ between runs)")
    axes.set_ylabel(label)
    fit_words(figure)
    legend_above(figure, axes)
    return svg_of(figure)
