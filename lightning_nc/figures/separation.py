"""D against depth: of classes, of several data sets, and by epoch."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lightning_nc.figures.canvas import (
    COLOURS,
    FUZZINESS,
    LINE,
    POINTS,
    Target,
    abridged,
    canvas,
    colour_bar,
    entitle_axes,
    in_legend,
    label_depth,
    legend,
    literal,
    logarithmic,
)
from lightning_nc.figures.law import MARKERS
from lightning_nc.figures.time_axis import EPOCHS
from lightning_nc.wording import digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_MARKERS = 1000  # of all lines of a figure


def class_separation_figure(
    names: Sequence[str],
    class_fuzziness: Tensor,
    fuzziness: Tensor,
    classes: Sequence[str],
    title: str,
    on: Target = None,
) -> "Figure":
    """D of each class and D of all classes against depth; the law holds for each class, too.

    Args:
        names: Layers in order of depth.
        class_fuzziness: D of each class at each layer, shape ``(T, K)``.
        fuzziness: D of all classes at each layer, shape ``(T,)``.
        classes: The name of each class.
        title: Title of the figure.
        on: Where to draw, see `canvas`.
    """
    figure, (axes,) = canvas(1, (5.4, 4.0), on)
    depth = np.arange(len(names))
    K = len(class_fuzziness.mT)
    faint = 0.45 if K <= 20 else 0.2
    axes.plot([], [], "-", color=POINTS, linewidth=1, label=f"one of {K} classes")
    for D_k in class_fuzziness.mT:
        axes.plot(depth, D_k.numpy(), "-", color=POINTS, alpha=faint, linewidth=1)
    last = class_fuzziness[-1]  # which separates one class worst and one best
    for k, above in {int(last.argmin()): False, int(last.argmax()): True}.items():
        _name_class(axes, classes[k], (len(names) - 1, float(last[k])), above)
    _add_all_classes(axes, names, fuzziness, "all classes", title)
    return figure


def class_quantiles_figure(
    names: Sequence[str],
    quantiles: Mapping[float, Tensor],
    fuzziness: Tensor,
    extremes: tuple[str, str],
    title: str,
    on: Target = None,
) -> "Figure":
    """Quantiles over many classes of the D of each class, and D of all classes, against depth.

    Args:
        names: Layers in order of depth.
        quantiles: Quantiles over classes at each layer, shape ``(T,)``, by their level between 0
            and 1. The levels include 0, 0.5 and 1, and with each level q also 1 - q.
        fuzziness: D of all classes at each layer, shape ``(T,)``.
        extremes: Names of the classes with the largest and the smallest D at the last layer.
        title: Title of the figure.
        on: Where to draw, see `canvas`.
    """
    figure, (axes,) = canvas(1, (5.4, 4.0), on)
    depth, levels = np.arange(len(names)), sorted(quantiles)
    pairs = [(low, high) for low, high in zip(levels, levels[::-1], strict=True) if low < high]
    for shade, (low, high) in enumerate(pairs, 1):
        band = (quantiles[low].numpy(), quantiles[high].numpy())
        inner = f"{high - low:.0%} of classes" if high - low < 1 else "all classes"
        faint = {"color": POINTS, "alpha": 0.12 * shade, "linewidth": 0}
        axes.fill_between(depth, *band, label=inner, **faint)
    axes.plot(depth, quantiles[0.5].numpy(), "-", color=POINTS, label="median class")
    for level, name in zip((1.0, 0.0), extremes, strict=True):
        _name_class(axes, name, (len(names) - 1, float(quantiles[level][-1])), level == 1)
    _add_all_classes(axes, names, fuzziness, "D of all", title)
    return figure


def separation_comparison_figure(
    names: Sequence[str], fuzziness: dict[str, Tensor], title: str, on: Target = None
) -> "Figure":
    """D against depth on several data sets, such as training and validation data.

    Args:
        names: Layers in order of depth.
        fuzziness: D at each layer, shape ``(T,)``, by the name of the data set.
        title: Title of the figure.
        on: Where to draw, see `canvas`.
    """
    figure, (axes,) = canvas(1, (5.4, 4.0), on)
    for (name, D), colour in zip(fuzziness.items(), cycle(COLOURS), strict=False):
        label = in_legend(literal(name))
        axes.plot(np.arange(len(names)), D.numpy(), _line(names), color=colour, label=label)
    logarithmic(axes.yaxis)
    label_depth(axes, names)
    legend(axes)
    entitle_axes(axes, title)
    return figure


def layers_over_epochs_figure(
    names: Sequence[str],
    epochs: Sequence[float],
    values: Sequence[Tensor],
    title: str,
    label: str = FUZZINESS,
    on: Target = None,
    time: str = EPOCHS,
) -> "Figure":
    """D, or another value, against depth: a line per measurement, from dark to light.

    Args:
        names: Layers in order of depth.
        epochs: Epochs completed at each measurement.
        values: The value at each layer, shape ``(T,)``, for each measurement.
        title: Title of the figure.
        label: Label of the value.
        on: Where to draw, see `canvas`.
        time: Label of the colour bar, if it does not count epochs, see `TimeAxis`.
    """
    figure, (axes,) = canvas(1, (5.8, 4.0), on)
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize
    from matplotlib.ticker import FuncFormatter

    # shades follow the number of the measurement, since later epochs are often measured more
    # sparsely; the end of the map is left out, since its yellow is pale on white
    last = max(len(epochs) - 1, 1)
    depth, numbers = np.arange(len(names)), np.arange(len(epochs))
    lines = np.stack([np.column_stack((depth, D.numpy())) for D in values])
    shades: dict[str, Any] = {"cmap": "viridis", "norm": Normalize(0, last / 0.9)}
    drawn = LineCollection(list(lines), array=numbers, linewidths=1, **shades)
    axes.add_collection(drawn)
    if len(names) <= MARKERS and lines[..., 1].size <= _MOST_MARKERS:
        axes.scatter(*lines.reshape(-1, 2).T, 8, numbers.repeat(len(names)), **shades)
    axes.autoscale_view()
    if bool((lines[..., 1] > 0).any()):
        logarithmic(axes.yaxis)
    label_depth(axes, names, label)
    shown = sorted({0, len(epochs) // 2, len(epochs) - 1})
    in_epochs = FuncFormatter(lambda number, _place: digits(epochs[round(number)]))
    of_bar: dict[str, Any] = {"ticks": shown, "format": in_epochs}
    bar = colour_bar(figure, drawn, [axes], on, time, **of_bar)
    bar.ax.set_ylim(0, last)
    entitle_axes(axes, title)
    return figure


def _name_class(axes: Any, name: str, end: tuple[int, float], above: bool) -> None:
    """Name the line of a class at its end: a long name over or below the line, a short one behind.

    Of two lines that end close to each other, the upper one is named above and the other below.
    """
    x, side = (0, "right") if len(name) > 3 else (4, "left")
    y, edge = (3, "bottom") if above else (-3, "top")
    style = {"color": POINTS, "parse_math": False, "textcoords": "offset points"}
    text = axes.annotate(abridged(name), end, xytext=(x, y), ha=side, va=edge, **style)
    text.set_in_layout(False)  # as a legend, see `legend`
    axes.margins(0.08)  # room for names


def _add_all_classes(
    axes: Any, names: Sequence[str], fuzziness: Tensor, label: str, title: str
) -> None:
    """Draw D of all classes over that of single ones, and label the axes."""
    depth = np.arange(len(names))
    axes.plot(depth, fuzziness.numpy(), _line(names), color=LINE, label=label, zorder=3)
    if bool((fuzziness > 0).any()):
        logarithmic(axes.yaxis)
    label_depth(axes, names)
    legend(axes)
    entitle_axes(axes, title)


def _line(names: Sequence[str]) -> str:
    """The format of a line against depth: with a marker for each layer, unless there are many."""
    return "o-" if len(names) <= MARKERS else "-"
