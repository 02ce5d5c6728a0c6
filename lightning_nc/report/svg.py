"""What the small figures of a page have in common: letters, looks of runs, and SVG to embed."""

import io
import re
from collections.abc import Iterable
from typing import Any

from lightning_nc.figures.canvas import COLOURS, literal
from lightning_nc.report.remarks import clipped, printable

WIDTH, _LOW, HIGH = 3.4, 2.5, 3.0  # inches; the page shows all figures equally wide
FONT = 8  # points, of all letters
_LETTERS = 40  # longest name of a run in a legend
_LETTERS_OF_A_LINE = 56
_STYLES = ("-", "--", ":", "-.")  # one after the other, whenever the colours repeat


def small_figure(height: float = _LOW) -> tuple[Any, Any]:
    """Return a figure of the page and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(True, which="major", alpha=0.3)
    plain(axes)
    return figure, axes


def plain(axes: Any) -> None:
    """Reduce spines and letters to suit the small pictures of a page."""
    axes.spines[["top", "right"]].set_visible(False)
    small_letters(axes)


def small_letters(axes: Any) -> None:
    """Reduce the letters of axes."""
    axes.tick_params(which="both", labelsize=FONT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_size(FONT)


def look_of_run(number: int) -> tuple[str, str]:
    """Colour and style of a run."""
    return COLOURS[number % len(COLOURS)], _STYLES[number // len(COLOURS) % len(_STYLES)]


def short_labels(runs: Iterable[str]) -> dict[str, str]:
    """A label for each run; those that look alike are numbered."""
    labels: dict[str, str] = {}
    for number, run in enumerate(runs, start=1):
        label = literal(clipped(printable(run), _LETTERS))
        labels[run] = f"{label} ({number})" if label in labels.values() else label
    return labels


def legend_above(figure: Any, axes: Any, size: float = FONT) -> None:
    """Write a legend above the axes, in smaller letters if it is too wide for the figure."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        columns = max(1, _LETTERS_OF_A_LINE // (7 + max(map(len, labels))))  # 7 for its sample
        look: dict[str, Any] = {"loc": "outside upper left", "frameon": False}
        legend = figure.legend(handles, labels, ncols=columns, fontsize=size, **look)
        too_wide = legend.get_window_extent().width / (0.95 * figure.bbox.width)
        if too_wide > 1:
            legend.remove()
            legend_above(figure, axes, 0.98 * size / too_wide)


def svg_of(figure: Any) -> str:
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
