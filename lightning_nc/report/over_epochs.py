"""The curves of a panel over epochs, as SVG to embed in a page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_nc.figures.canvas import COLOURS, in_legend, logarithmic
from lightning_nc.figures.epochs import draw_curve
from lightning_nc.figures.time_axis import time_axis
from lightning_nc.measures.neural_collapse import first_without_error
from lightning_nc.measures.quantity import Curve, Panel
from lightning_nc.report.runs import Series
from lightning_nc.report.svg import legend_above, look_of_run, short_labels, small_figure, svg_of
from lightning_nc.wording import digits


def panel_svg(panel: Panel, curves: Mapping[str, Curve], runs: Mapping[str, Series]) -> str:
    """Draw the curves of a panel over epochs; several runs are overlaid.

    Args:
        panel: The panel.
        curves: Its curves by the name of the quantity; a dashed curve has the colour of the one
            before it.
        runs: Measurements by the name of the run.

    Returns:
        The SVG; empty if there is nothing to draw.
    """
    several, named = len(runs) > 1, short_labels(runs)
    lines = [
        (run, name)
        for run, series in runs.items()
        for name, curve in curves.items()
        if (curve.compared or not several) and any(map(math.isfinite, series.values.get(name, ())))
    ]
    if not lines:
        return ""
    figure, axes = small_figure()
    time = time_axis([s.epochs for s in runs.values()], [s.steps for s in runs.values()])
    places = dict(zip(runs, time.places, strict=True))
    if panel.logarithmic and any(v > 0 for run, name in lines for v in runs[run].values[name]):
        logarithmic(axes.yaxis)
    for run, name in lines:
        number = list(runs).index(run) if several else -1
        colour, style, label = _look(list(curves.values()), curves[name], number, named[run])
        look = {"color": colour, "label": in_legend(label), "markersize": 3.5, "linewidth": 1.4}
        draw_curve(axes, places[run], runs[run].values[name], style, **look)
    _references(axes, panel)
    if panel.terminal and not several:
        ((run, series),) = runs.items()
        _mark_fitted(axes, series, places[run])
    _time_axis(axes, sorted({place for each in time.places for place in each}), time.label)
    legend_above(figure, axes)
    return svg_of(figure)


def _look(curves: Sequence[Curve], curve: Curve, number: int, run: str) -> tuple[str, str, str]:
    """Colour, style and label of a curve: those of its run if there are several runs."""
    if number >= 0:
        colour, style = look_of_run(number)
        compared = [each for each in curves if each.compared]
        return (
            colour,
            (":" if curve.dashed else style),
            (f"{run}: {curve.label}" if len(compared) > 1 else run),
        )
    solid = [each for each in curves[: curves.index(curve) + 1] if not each.dashed]
    return COLOURS[(len(solid) - 1) % len(COLOURS)], "--" if curve.dashed else "-", curve.label


def _references(axes: Any, panel: Panel) -> None:
    for says, value in panel.references:
        axes.axhline(
            value, color="0.45", linestyle=":", linewidth=1.2, label=in_legend(says) or None
        )


def _mark_fitted(axes: Any, series: Series, places: Sequence[float]) -> None:
    """Shade the time since the first measurement without an error on the probe."""
    first = first_without_error(series.values.get("accuracy", ()))
    if first is not None:
        start = places[first]
        says = "probe fitted"
        axes.axvspan(start, max(places), color="0.5", alpha=0.12, linewidth=0, label=says)
        axes.axvline(start, color="0.45", linewidth=1)


def _time_axis(axes: Any, epochs: Sequence[float], label: str) -> None:
    """Set up the time axis: logarithmic from 1 on if what is late is measured sparsely."""
    sparse = len(epochs) > 4 and epochs[len(epochs) // 2] < max(epochs) / 4
    if sparse:
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        axes.set_xlim(-0.2, 1.15 * max(epochs))
    if sparse or len(epochs) < 8:
        apart = [e for e in epochs if not sparse or e < max(epochs) / 1.9] + [max(epochs)]
        axes.set_xticks(sorted(set(apart[:: -(-len(apart) // 9)])))
        axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda place, _: digits(place))
    axes.set_xlabel(label)
