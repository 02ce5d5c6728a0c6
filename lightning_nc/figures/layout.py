"""The layout and logarithmic ticks of our figures, in half the time of matplotlib's own."""

from collections.abc import Sequence
from typing import Any

from matplotlib.layout_engine import LayoutEngine
from matplotlib.ticker import LogLocator

_PAD = 5  # points around the figure, and between its parts


class FewMinorTicks(LogLocator):
    """Two ticks between powers of ten, and more where these would be too few."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """The places of the ticks of an interval."""
        self.set_params(subs=range(2, 10) if vmax < 10 * vmin else (2, 5))
        return super().tick_values(vmin, vmax)


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
            inner, outer = axes.get_window_extent(), axes.get_tightbbox()
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
        between = max((a + b for a, b in zip(right, left[1:], strict=False)), default=0) + pad
        free = width - left[0] - right[-1] - 2 * pad - (len(rooms) - 1) * between
        fig.subplots_adjust(
            left=(left[0] + pad) / width,
            right=1 - (right[-1] + pad) / width,
            bottom=(max(bottom) + pad) / height,
            top=1 - above / height,
            wspace=between / max(free / len(rooms), 1),
        )
