"""Cosines and norms of class means and classifier rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lightning_nc.figures.canvas import (
    COLOURS,
    LINE,
    POINTS,
    Target,
    abridged,
    canvas,
    colour_bar,
    entitle,
    entitle_axes,
    label_classes,
    legend,
    legend_below,
    logarithmic,
    thinned,
)
from lightning_nc.wording import digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cosine_figure(
    cosines: dict[str, Tensor],
    title: str,
    classes: Sequence[str],
    by_size: bool = False,
    border: int | None = None,
    on: Target = None,
) -> "Figure":
    """Cosines between class vectors; at neural collapse all off the diagonal are -1/(K-1).

    Args:
        cosines: Matrices of shape ``(K, K)``, by the name of the vectors.
        title: Title of the figure.
        classes: The name of the class of each row.
        by_size: Whether the largest class comes first.
        border: First row and column of the second group of classes, marked by a line.
        on: Where to draw, see `canvas`.
    """
    figure, all_axes = canvas(len(cosines), (4.0 * len(cosines) + 0.8, 4.1), on)
    for axes, (name, matrix) in zip(all_axes, cosines.items(), strict=True):
        K = len(matrix)
        image = axes.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
        entitle_axes(axes, name)
        if border is not None:
            axes.axhline(border - 0.5, color="black", linewidth=1)
            axes.axvline(border - 0.5, color="black", linewidth=1)
    # rows and columns of all matrices are the same classes
    shown = thinned(K, 10)
    label_classes(all_axes[0], shown, [abridged(classes[k]) for k in shown])
    all_axes[0].set_ylabel("class, largest first" if by_size else "class")
    colour_bar(figure, image, all_axes, on, "cosine", ticks=[-1, 0, 1])
    ideal = f"ideal off the diagonal: -1/(K-1) = {-1 / (K - 1):.3f}"
    entitle(figure, f"{title}; {ideal}", on)
    return figure


def cosine_histogram_figure(
    histograms: Mapping[str, Mapping[str, Tensor]], title: str, K: int, on: Target = None
) -> "Figure":
    """Cosines between many class vectors; at neural collapse, all are -1/(K-1).

    Args:
        histograms: How many pairs have cosines in each of some equal bins from -1 to 1, by the name
            of the vectors and by that of the group of classes, which is empty for all classes.
        title: Title of the figure.
        K: Number of classes.
        on: Where to draw, see `canvas`.
    """
    figure, all_axes = canvas(len(histograms), (4.0 * len(histograms) + 0.8, 3.6), on)
    for axes, (name, groups) in zip(all_axes, histograms.items(), strict=True):
        for (group, counts), colour in zip(groups.items(), COLOURS, strict=False):
            if counts.any():
                middles = np.linspace(-1, 1, 2 * len(counts) + 1)[1::2]
                shares = counts / counts.sum()
                look = {"color": colour, "label": group or None, "drawstyle": "steps-mid"}
                axes.plot(middles, shares.numpy(), **look)
        label = f"simplex: -1/(K-1) = {-1 / (K - 1):.2g}"
        axes.axvline(-1 / (K - 1), color="black", linestyle=":", linewidth=1, label=label)
        logarithmic(axes.yaxis)
        axes.set_xlim(-1, 1)
        axes.set_xticks([-1, 0, 1])
        axes.set_xlabel("cosine")
        axes.grid(True, which="major", alpha=0.3)
        entitle_axes(axes, name)
    all_axes[0].set_ylabel("share of pairs of classes")
    legend_below(figure, all_axes[0], on)
    entitle(figure, f"{title}; {K} classes", on)
    return figure


def class_size_figure(
    class_counts: Tensor,
    norms: dict[str, Tensor],
    minority: Tensor,
    classes: Sequence[str],
    title: str,
    on: Target = None,
) -> "Figure":
    """Norms of class vectors, largest class first.

    Args:
        class_counts: Training samples per class, shape ``(K,)``; not finite if unknown.
        norms: Norms, shape ``(K,)`` each, by the name of the vectors.
        minority: 1 for minority and 0 for majority classes, shape ``(K,)``.
        classes: The name of each class.
        title: Title of the figure.
        on: Where to draw, see `canvas`.
    """
    figure, all_axes = canvas(len(norms), (4.0 * len(norms) + 0.8, 3.6), on)
    known = bool(class_counts.isfinite().all())
    groups = bool(minority.any())  # without a minority there is no majority either
    order = class_counts.argsort(descending=True, stable=True)
    for axes, (name, of_class) in zip(all_axes, norms.items(), strict=True):
        finite = of_class.where(of_class.isfinite(), 0)[order]
        for group, colour in ((0, POINTS), (1, LINE)):
            of_group = minority[order] == group
            if of_group.any():
                label = ("minority" if group else "majority") if groups else None
                style = {"color": colour if groups else "0.6", "label": label, "linewidth": 0}
                # one outline of all bars, since as many patches take long
                lengths = finite[of_group].numpy()[:, None] * (0, 1, 1, 0)
                edges = np.nonzero(of_group.numpy())[0][:, None] + (-0.4, -0.4, 0.4, 0.4)
                axes.fill_betweenx(edges.ravel(), lengths.ravel(), **style)
        axes.set(yticks=[], ylim=(len(order) - 0.4, -0.6), xlabel="norm")
        axes.set_xlim(left=0)
        axes.locator_params("x", nbins=3)
        entitle_axes(axes, name)
    shown = thinned(len(order), 10)
    sizes = [f": {digits(float(class_counts[order[k]]))}" if known else "" for k in shown]
    named = [f"{abridged(classes[int(order[k])])}{n}" for k, n in zip(shown, sizes, strict=True)]
    label_classes(all_axes[0], shown, named)
    all_axes[0].set_ylabel("class and number of training samples" if known else "class")
    if groups:
        legend_below(figure, all_axes[0], on)
    entitle(figure, title, on)
    return figure


def prediction_figure(
    ratio: float,
    cosine: float,
    ratios: Sequence[float],
    predicted: Sequence[float],
    simplex: float,
    title: str,
    on: Target = None,
) -> "Figure":
    """Mean cosine of minority classifier rows: measured, and by the layer-peeled model against R.

    Args:
        ratio: Measured imbalance R.
        cosine: Measured mean cosine.
        ratios: Imbalances R for which the model was solved.
        predicted: The model's mean cosine at each of them.
        simplex: Cosine of balanced classes, -1/(K-1).
        title: Title of the figure.
        on: Where to draw, see `canvas`.
    """
    figure, (axes,) = canvas(1, (5.0, 3.6), on)
    axes.axhline(simplex, color="0.6", linestyle=":", label="balanced: -1/(K-1)")
    axes.plot(ratios, predicted, "-", color=LINE, label="layer-peeled model")
    axes.plot([ratio], [cosine], "o", color=POINTS, label="measured", zorder=3)
    logarithmic(axes.xaxis)
    axes.set_ylim(-1.05 if min(cosine, simplex) < -0.5 else -0.55, 1.05)
    axes.set_xlabel("imbalance R (majority : minority class size)")
    axes.set_ylabel("mean cosine of minority classifier rows")
    axes.grid(True, alpha=0.3)
    legend(axes)
    entitle_axes(axes, title)
    return figure
