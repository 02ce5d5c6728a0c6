"""What all figures are drawn on: no pyplot, so that no window or state is left."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# of Okabe and Ito, safe for the colour-blind
COLOURS = POINTS, LINE, THIRD, *_ = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def require_matplotlib() -> None:
    """Say what to do where matplotlib, which is an extra, is not installed.

    Raises:
        ModuleNotFoundError: Names the extra, and how to do without figures.
    """
    try:
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise  # of what matplotlib itself needs
        raise ModuleNotFoundError(
            "figures need matplotlib, which is not installed: pip install "
            "'lightning-neural-collapse[plot]', or give the callback figures=False.",
            name="matplotlib",
        ) from error


def canvas(columns: int, size: tuple[float, float]) -> tuple["Figure", Any]:
    """A figure and its axes, in one row."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def label_depth(axes: Any, names: Sequence[str]) -> None:
    """Name the layers below, and D beside."""
    depth = np.arange(len(names))
    shown = depth if len(names) <= 12 else depth[:: -(-len(names) // 12)]
    axes.set_xticks(shown, [_short(names[t]) for t in shown], rotation=45, ha="right")
    axes.set_ylabel("separation fuzziness $D$")
    axes.grid(True, which="major", alpha=0.3)


def _short(name: str) -> str:
    """The end of a long module name."""
    return name if len(name) <= 18 else "…" + name[-17:]
