"""Draw curves over epochs, and D against depth, as SVG to embed in a page."""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lightning_nc.figures import draw_law, layers_over_epochs_figure
from lightning_nc.figures.canvas import COLOURS, in_legend, label_depth, literal, logarithmic
from lightning_nc.figures.epochs import draw_curve
from lightning_nc.figures.time_axis import time_axis
from lightning_nc.measures.quantity import Curve, Panel
from lightning_nc.report.remarks import clipped, shown
from lightning_nc.report.runs import Series

_LETTERS = 40  # longest name of a run in a legend
_WIDTH, _LOW, _HIGH = 3.4, 2.5, 3.0  # inches; the page shows all figures equally wide
_FONT = 8  # points, of all letters
_LETTERS_OF_A_LINE = 56
_STYLES = ("-", "--", ":", "-.")  # one after the other, whenever the colours repeat


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
    several, named = len(runs) > 1, _short(runs)
    lines = [
        (run, name)
        for run, series in runs.items()
        for name, curve in curves.items()
        if (curve.compared or not several) and any(map(math.isfinite, series.values.get(name, ())))
    ]
    if not lines:
        return ""
    figure, axes = _figure()
    time = time_axis([s.epochs for s in runs.values()], [s.steps for s in runs.values()])
    places = dict(zip(runs, time.places, strict=True))
    if panel.logarithmic and _any_positive(runs, lines):
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
    _legend(figure, axes)
    return _svg(figure)


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
    figure.set_size_inches(_WIDTH, _HIGH)
    (axes,) = figure.axes
    (bar,) = axes.child_axes
    _plain(axes)
    _small_letters(bar)
    if law and series.in_depth:
        draw_law(axes, D[-1])
        for text in axes.texts:  # above the axes, since no corner of them is free in every run
            one_line = "last: " + text.get_text().replace("\n", ", ")
            text.set(text=one_line, position=(0, 1.02), ha="left", va="bottom", fontsize=_FONT)
    return _svg(figure)


def depth_of_runs_svg(runs: Mapping[str, Series], label: str) -> str:
    """Draw values against depth at the last measurement of each run.

    Args:
        runs: Measurements by the name of the run.
        label: Label of the values.

    Returns:
        The SVG.
    """
    from lightning_nc.figures.layout import fit_words

    figure, axes = _figure(_HIGH)
    logarithmic(axes.yaxis)
    named = _short(runs)
    for number, (run, series) in enumerate(runs.items()):
        D = np.array([of_layer[-1] for of_layer in series.layers.values()])
        colour, style = _of_run(number)
        look = {"color": colour, "marker": "o", "markersize": 4, "label": in_legend(named[run])}
        axes.plot(np.where(D > 0, D, np.nan), style, **look)
    names = {tuple(series.layers) for series in runs.values()}
    if len(names) == 1:
        label_depth(axes, names.pop())
    else:
        axes.set_xlabel("layers (they differ between runs)")
    axes.set_ylabel(label)
    fit_words(figure)
    _legend(figure, axes)
    return _svg(figure)


def _any_positive(runs: Mapping[str, Series], lines: Sequence[tuple[str, str]]) -> bool:
    return any(value > 0 for run, name in lines for value in runs[run].values[name])


def _look(curves: Sequence[Curve], curve: Curve, number: int, run: str) -> tuple[str, str, str]:
    """Colour, style and label of a curve: those of its run if there are several runs."""
    if number >= 0:
        colour, style = _of_run(number)
        compared = [each for each in curves if each.compared]
        return (
            colour,
            (":" if curve.dashed else style),
            (f"{run}: {curve.label}" if len(compared) > 1 else run),
        )
    solid = [each for each in curves[: curves.index(curve) + 1] if not each.dashed]
    return COLOURS[(len(solid) - 1) % len(COLOURS)], "--" if curve.dashed else "-", curve.label


def _of_run(number: int) -> tuple[str, str]:
    return COLOURS[number % len(COLOURS)], _STYLES[number // len(COLOURS) % len(_STYLES)]


def _short(runs: Iterable[str]) -> dict[str, str]:
    """A label for each run; those that look alike are numbered."""
    labels: dict[str, str] = {}
    for number, run in enumerate(runs, start=1):
        label = literal(clipped(shown(run), _LETTERS))
        labels[run] = f"{label} ({number})" if label in labels.values() else label
    return labels


def _references(axes: Any, panel: Panel) -> None:
    for says, value in panel.references:
        axes.axhline(
            value, color="0.45", linestyle=":", linewidth=1.2, label=in_legend(says) or None
        )


def _mark_fitted(axes: Any, series: Series, places: Sequence[float]) -> None:
    """Shade the time since the first measurement without an error on the probe."""
    first = first_without_error(series)
    if first is not None:
        start = places[first]
        says = "probe fitted"
        axes.axvspan(start, max(places), color="0.5", alpha=0.12, linewidth=0, label=says)
        axes.axvline(start, color="0.45", linewidth=1)


def first_without_error(series: Series) -> int | None:
    """The number of the first measurement with accuracy 1 on the probe; None if there is none.

    Args:
        series: Measurements of NeuralCollapse.
    """
    accuracy = series.values.get("accuracy", [])
    return next((number for number, a in enumerate(accuracy) if a == 1), None)


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
    axes.xaxis.set_major_formatter(lambda epoch, _: f"{epoch:g}")
    axes.set_xlabel(label)


def _legend(figure: Any, axes: Any, size: float = _FONT) -> None:
    """Write a legend above the axes, in smaller letters if it is too wide for the figure."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        columns = max(1, _LETTERS_OF_A_LINE // (7 + max(map(len, labels))))  # 7 for its sample
        look: dict[str, Any] = {"loc": "outside upper left", "frameon": False}
        legend = figure.legend(handles, labels, ncols=columns, fontsize=size, **look)
        too_wide = legend.get_window_extent().width / (0.95 * figure.bbox.width)
        if too_wide > 1:
            legend.remove()
            _legend(figure, axes, 0.98 * size / too_wide)


def _figure(height: float = _LOW) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(True, which="major", alpha=0.3)
    _plain(axes)
    return figure, axes


def _plain(axes: Any) -> None:
    """Reduce spines and letters to suit the small pictures of a page."""
    axes.spines[["top", "right"]].set_visible(False)
    _small_letters(axes)


def _small_letters(axes: Any) -> None:
    axes.tick_params(which="both", labelsize=_FONT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_size(_FONT)


def _svg(figure: Any) -> str:
    """The figure as SVG to embed in HTML; equal figures have equal SVG."""
    import matplotlib

    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "lightning_nc", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    svg = file.getvalue()
    start, end = svg.index("<svg"), svg.index(">", svg.index("<svg"))
    # HTML needs no namespaces, and the page sets the size
    return re.sub(r' (xmlns(:xlink)?|width|height)="[^"]*"', "", svg[start:end]) + svg[end:]
