"""The canvas and the axis labels of all figures, without pyplot and its global state."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lightning_nc.figures.labels import LETTERS, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# a figure that is empty, axes or a sequence or array of them, or None for a new figure
Target: TypeAlias = "Figure | Axes | Sequence[Axes] | np.ndarray[Any, Any] | None"

# the palette of Okabe and Ito, which colour-blind readers can tell apart
COLOURS = POINTS, LINE, THIRD, *_ = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")

DPI = 120
# no mathematics in labels, which takes long to lay out
FUZZINESS = "separation fuzziness D"

ROUND_STEPS = (1, 2, 5, 10)  # between ticks, times a power of ten

_TICKS = 10  # most names below an axis


def require_matplotlib() -> None:
    """Check that matplotlib, an optional dependency, is installed.

    Raises:
        ModuleNotFoundError: If it is not; the message names the extra to install.
    """
    try:
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise  # a dependency of matplotlib is missing
        raise ModuleNotFoundError(
            "figures need matplotlib, which is not installed. Run pip install "
            "'lightning-neural-collapse[plot]', or pass figures=False to the callback.",
            name="matplotlib",
        ) from error


def canvas(columns: int, size: tuple[float, float], on: Target = None) -> tuple["Figure", Any]:
    """Return a figure and its axes in one row.

    Args:
        columns: Number of axes.
        size: Width and height of the figure in inches.
        on: Where to draw: an empty figure, which is given this size, or axes of a figure, of which
            only these are drawn on; None for a new figure, which pyplot does not know.

    Returns:
        The figure, and an array of its axes, shape ``(columns,)``.

    Raises:
        ValueError: If the number of axes given is another one.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from lightning_nc.figures.layout import RowLayout

    if not has_figure_of_its_own(on):
        all_axes = np.atleast_1d(np.asarray(on, dtype=object)).ravel()
        if len(all_axes) != columns:
            raise ValueError(
                f"This figure has {columns} axes, got {len(all_axes)}. Give as many: "
                f"ax=plt.subplots(1, {columns})[1]."
            )
        return all_axes[0].figure, all_axes
    figure: Any = Figure(dpi=DPI) if on is None else on
    if on is None:
        FigureCanvasAgg(figure)
    figure.set_layout_engine(RowLayout())
    figure.set_size_inches(size)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def has_figure_of_its_own(on: Target) -> bool:
    """Whether all of a figure is drawn, and not only axes of a figure of the user's."""
    return on is None or hasattr(on, "subplots")


def colour_bar(
    figure: Any, mapped: Any, all_axes: Sequence[Any], on: Target, label: str, **ticks: Any
) -> Any:
    """Draw a colour bar beside axes: part of the last of them, unless the figure is the user's.

    Args:
        figure: The figure of the axes.
        mapped: What maps numbers to colours.
        all_axes: The axes.
        on: Where they were drawn, see `canvas`.
        label: What the numbers are.
        ticks: Where the bar has ticks; by default where matplotlib puts them.
    """
    if has_figure_of_its_own(on):
        place = all_axes[-1].inset_axes((1.04, 0.05, 0.05, 0.9))
        return figure.colorbar(mapped, cax=place, label=label, **ticks)
    return figure.colorbar(mapped, ax=list(all_axes), label=label, **ticks)


def legend(axes: Any, **look: Any) -> None:
    """Write the legend of axes, if anything is drawn that has a label.

    No room is made for it: in a figure of the user's with a layout engine, a legend that is wider
    than its axes would make all axes narrow.
    """
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**{"fontsize": "small", **look}).set_in_layout(False)


def legend_below(figure: Any, axes: Any, on: Target) -> None:
    """Write the legend of axes below all axes of the row, unless the figure is the user's."""
    known = axes.get_legend_handles_labels()
    if known[0] and has_figure_of_its_own(on):
        figure.legend(*known, loc="lower center", ncols=3, fontsize="small")
    else:
        legend(axes)


def entitle(figure: Any, title: str, on: Target) -> None:
    """Write a title above all axes, letter by letter, unless the figure is the user's."""
    if has_figure_of_its_own(on):
        figure.suptitle(literal(title), fontsize="medium")


def entitle_axes(axes: Any, title: str) -> None:
    """Write a title above axes, letter by letter.

    Its height is fixed: to find one, matplotlib measures all ticks.
    """
    axes.set_title(literal(title), y=1)


def label_depth(axes: Any, names: Sequence[str], label: str = FUZZINESS) -> None:
    """Label the axes of a value against depth; names are of layers in that order."""
    shown, short = thinned(len(names), _TICKS), shortened(names)
    axes.set_xticks(shown, [literal(short[t]) for t in shown], rotation=45, ha="right")
    axes.set_ylabel(label)
    axes.grid(True, which="major", alpha=0.3)


def logarithmic(axis: Any) -> None:
    """Make an axis logarithmic, with few ticks and no mathematics in labels: both take long."""
    from matplotlib.ticker import NullLocator

    from lightning_nc.figures.layout import FewLogTicks, LogTickLabels

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(FewLogTicks())
    axis.set_major_formatter(LogTickLabels())
    axis.set_minor_locator(NullLocator())


def thinned(count: int, most: int) -> list[int]:
    """Some of the places 0, 1, ... in equal steps, the first among them, to be labelled."""
    return list(range(0, count, max(1, -(-count // most))))


def label_classes(axes: Any, places: Sequence[float], names: Sequence[str]) -> None:
    """Name classes along the vertical axis, where long names have room and need no slant.

    Args:
        axes: Matplotlib axes.
        places: Where the names stand.
        names: A name for each place; dollar signs are printed as they are.
    """
    axes.set_yticks(places, names, parse_math=False)


def abridged(name: str) -> str:
    """Return a long name of a class without its middle: names that begin alike end otherwise."""
    end = LETTERS // 2 - 1
    return name if len(name) <= LETTERS else f"{name[: LETTERS - end - 1]}…{name[-end:]}"


def literal(text: str) -> str:
    """Return text for matplotlib to draw letter by letter: dollar signs enclose no mathematics.

    Args:
        text: Text of the user's, such as the name of a probe, a layer or a folder.
    """
    return text.replace("$", r"\$")


def in_legend(label: str) -> str:
    """Return a label that legends do not leave out, as matplotlib's do if it begins with ``_``."""
    return f" {label}" if label.startswith("_") else label


def label_epochs(axes: Any, label: str) -> None:
    """Label the horizontal axis with whole epochs, within one with parts of it.

    It is widened around a single measurement.
    """
    from matplotlib.ticker import MaxNLocator

    first, last = axes.dataLim.intervalx
    if first == last:
        axes.set_xlim(first - 1, first + 1)
    within = 0 < last - first < 1
    ticks = MaxNLocator(6, steps=ROUND_STEPS, integer=not within, min_n_ticks=1)
    axes.xaxis.set_major_locator(ticks)
    axes.set_xlabel(label)
