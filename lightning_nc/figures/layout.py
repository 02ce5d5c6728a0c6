"""The layout and logarithmic ticks of our figures, in half the time of matplotlib's own."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.layout_engine import LayoutEngine
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator

from lightning_nc.figures.labels import labels_of_logarithmic_ticks

_PAD = 5  # points around the figure, and between its parts


class FewLogTicks(LogLocator):
    """Ticks at powers of ten, and between them only where these would be too few."""

    def nonsingular(self, v0: float, v1: float) -> tuple[float, float]:
        """The limits for values from v0 to v1: wider if labels would show these as equal."""
        low, high = super().nonsingular(v0, v1)
        return (low / 3, 3 * high) if high - low < 1e-4 * high else (low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """The places of the ticks of an interval, without matplotlib's one beyond either end."""
        low, high = sorted((vmin, vmax))
        if low <= 0 or high >= 1000 * low:
            self.set_params(subs=(1,), numticks=6)
            places = super().tick_values(low, high)
            return [place for place in places if low <= place <= high]
        factors = (1, 2, 5) if high < 100 * low else (1, 3)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) < 3:
            evenly = MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)
            inside = [tick for tick in evenly if low <= tick <= high]
        return inside


class LogTickLabels(Formatter):
    """Labels of all ticks of a logarithmic axis in one style."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of a single place, such as that of the mouse."""
        return f"{x:.4g}"

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The labels of all ticks."""
        return labels_of_logarithmic_ticks(values)


def fit_words(figure: Any) -> None:
    """Reduce letters of titles, labels and legends that are too long for their axes or figure.

    Args:
        figure: A figure; what fits is left as it is.
    """
    pad, alone = _PAD * figure.dpi / 72, len(figure.axes) == 1
    for axes in [part for each in figure.axes for part in (each, *each.child_axes)]:
        box, legend = axes.get_window_extent(), axes.get_legend()
        width, middle = box.width, (box.x0 + box.x1) / 2
        # what is written in the middle of axes may reach beyond them if they have no neighbour
        reach = 2 * min(middle - pad, figure.bbox.width - pad - middle)
        _fit(axes.title, reach if alone else width)
        _fit(axes.xaxis.label, reach if alone else width)
        _fit(axes.yaxis.label, box.height)
        for text in legend.get_texts() if legend is not None else ():
            _fit(text, 0.75 * width)  # the rest is for its lines
    for text in figure.texts:
        _fit(text, figure.bbox.width - 2 * pad)


def _fit(text: Any, room: float) -> None:
    """Reduce the letters of a text, straight or upright, that is longer than its room in pixels."""
    length = max(text.get_window_extent().size) if text.get_text() else 0
    if length > room:
        text.set_fontsize(0.98 * text.get_fontsize() * room / length)


class RowLayout(LayoutEngine):
    """Leaves room around the axes of a row for what is written there, which is measured once.

    Matplotlib's engines measure twice, since ticks may change with the size of axes. Ours are so
    few that they do not.
    """

    _adjust_compatible = True
    _colorbar_gridspec = True

    def execute(self, fig: Any) -> None:
        """Set the margins of the axes, before the figure is drawn."""
        rooms = []
        for axes in fig.axes:
            axes.apply_aspect()
            inner = axes.get_window_extent()
            around = [*axes.child_axes, *axes.texts]
            # without the length of titles and labels, whose letters are reduced below
            outer = axes.get_tightbbox(for_layout_only=True, bbox_extra_artists=around)
            rooms.append(
                (
                    max(inner.x0 - outer.x0, 0),
                    max(outer.x1 - inner.x1, 0),
                    max(inner.y0 - outer.y0, 0),
                    max(outer.y1 - inner.y1, 0),
                )
            )
        left, right, bottom, top = zip(*rooms, strict=True)
        pad, (width, height) = _PAD * fig.dpi / 72, fig.bbox.size
        titles = [text.get_window_extent().height for text in fig.texts]
        above = max(top) + pad + sum(titles) + pad * len(titles)
        legends = [legend.get_window_extent().height for legend in fig.legends]
        below = max(bottom) + pad + sum(legends) + pad * len(legends)
        between = max((a + b for a, b in zip(right, left[1:], strict=False)), default=0) + pad
        free = width - left[0] - right[-1] - 2 * pad - (len(rooms) - 1) * between
        fig.subplots_adjust(
            left=(left[0] + pad) / width,
            right=1 - (right[-1] + pad) / width,
            bottom=below / height,
            top=1 - above / height,
            wspace=between / max(free / len(rooms), 1),
        )
        fit_words(fig)
