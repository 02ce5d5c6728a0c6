"""The kernel of local elasticity, class by class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_nc.figures.canvas import (
    Target,
    abridged,
    canvas,
    colour_bar,
    entitle_axes,
    label_classes,
    thinned,
)
from lightning_nc.functional.local_elasticity import normalised_kernel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES = 20  # most classes with lines between them
_BROAD = 10  # most classes with broad ones


def similarity_figure(
    kernel: Tensor, labels: Tensor, classes: Sequence[str], title: str, on: Target = None
) -> "Figure":
    """Normalised kernel between samples, sorted by class; local elasticity shows as red blocks.

    Args:
        kernel: Kernel K, shape ``(m, m)``.
        labels: Class of each sample, an index, shape ``(m,)``.
        classes: The name of each class.
        title: Title of the figure.
        on: Where to draw, see `canvas`.
    """
    figure, (axes,) = canvas(1, (5.4, 4.3), on)
    order = labels.argsort(stable=True)
    normalised = normalised_kernel(kernel)[order][:, order]
    image = axes.imshow(normalised.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    counts = labels.bincount()
    shown = counts.nonzero().flatten()
    counts = counts[shown]
    ends = counts.cumsum(0)
    few = len(shown) <= _LINES  # lines between more classes would hide the entries
    borders = (ends[:-1] - 0.5).tolist() if few else []
    # dashboards that leave out every other pixel of a figure keep lines that are two wide
    look: dict[str, Any] = {"color": "black", "linewidth": 1.2 if len(shown) <= _BROAD else 0.6}
    axes.hlines(borders, -0.5, len(labels) - 0.5, **look)
    axes.vlines(borders, -0.5, len(labels) - 0.5, **look)
    middles, places = ends - counts / 2 - 0.5, thinned(len(shown), 15)
    axes.set_xticks([])  # columns are the same classes as rows
    names = [abridged(classes[int(shown[place])]) for place in places]
    label_classes(axes, middles[places].tolist(), names)
    axes.set_ylabel("class")
    label = "K(a, b) / √(K(a, a) K(b, b))"
    colour_bar(figure, image, [axes], on, label, ticks=[-1, -0.5, 0, 0.5, 1])
    entitle_axes(axes, title)
    return figure
