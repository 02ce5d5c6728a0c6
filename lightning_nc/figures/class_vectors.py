"""Class means and classifier rows: their cosines and norms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lightning_nc.figures.canvas import LINE, POINTS, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cosine_figure(
    cosines: dict[str, Tensor],
    title: str,
    classes: Sequence[int] | None = None,
    border: int | None = None,
) -> "Figure":
    """K x K cosines of class vectors; at neural collapse all but the diagonal are -1/(K-1).

    Args:
        cosines: Matrices of shape ``(K, K)`` by what they are of.
        title: Above the figure.
        classes: Which class each row is of, the largest first; by default in their order.
        border: A line before this row and column, where a group of classes begins.
    """
    figure, all_axes = canvas(len(cosines), (4.0 * len(cosines) + 0.8, 4.3))
    for axes, (name, matrix) in zip(all_axes, cosines.items(), strict=True):
        K = len(matrix)
        image = axes.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        ticks = np.arange(K) if K <= 10 else np.arange(0, K, -(-K // 10))
        names = [int(k) if classes is None else classes[int(k)] for k in ticks]
        axes.set_xticks(ticks, names)
        axes.set_yticks(ticks, names)
        axes.set_xlabel("class" if classes is None else "class, the largest first")
        axes.set_title(name)
        if border is not None:
            axes.axhline(border - 0.5, color="black", linewidth=1)
            axes.axvline(border - 0.5, color="black", linewidth=1)
    all_axes[0].set_ylabel("class")
    figure.colorbar(image, ax=list(all_axes), shrink=0.8, label="cosine")
    ideal = f"ideal off the diagonal: -1/(K-1) = {-1 / (K - 1):.3f}"
    figure.suptitle(f"{title}; {ideal}", fontsize="medium")
    return figure


def class_size_figure(
    class_counts: Tensor, norms: dict[str, Tensor], minority: Tensor, title: str
) -> "Figure":
    """Norms of class vectors in the order of class size.

    Args:
        class_counts: Training samples per class, shape ``(K,)``.
        norms: Of shape ``(K,)`` each, by what they are of.
        minority: 1 for minority classes, shape ``(K,)``.
        title: Above the figure.
    """
    figure, all_axes = canvas(len(norms), (4.6 * len(norms), 3.4))
    known = bool(class_counts.isfinite().all())
    order = class_counts.argsort(descending=True, stable=True)
    places = np.arange(len(order))
    for axes, (name, of_class) in zip(all_axes, norms.items(), strict=True):
        for group, colour in ((0, POINTS), (1, LINE)):
            of_group = (minority[order] == group).numpy()
            label = ("minority" if group else "majority") if known else None
            if of_group.any():
                bars = {"color": colour if known else "0.6", "label": label}
                axes.bar(places[of_group], of_class[order][of_group], **bars)
        shown = places if len(places) <= 12 else places[:: -(-len(places) // 12)]
        sizes = [f"\n{class_counts[order[k]]:g}" if known else "" for k in shown]
        axes.set_xticks(shown, [f"{int(order[k])}{n}" for k, n in zip(shown, sizes, strict=True)])
        axes.set_xlabel("class and its training samples" if known else "class")
        axes.margins(y=0.25)  # room for the legend
        axes.set_title(name)
    all_axes[0].set_ylabel("norm")
    if known:
        all_axes[-1].legend()
    figure.suptitle(title, fontsize="medium")
    return figure


def prediction_figure(
    ratio: float,
    cosine: float,
    ratios: Sequence[float],
    predicted: Sequence[float],
    simplex: float,
    title: str,
) -> "Figure":
    """The measured cosine between minority rows, and the layer-peeled model's against R.

    Args:
        ratio: Measured imbalance R.
        cosine: Measured mean cosine.
        ratios: Imbalances for which the model was solved.
        predicted: Its mean cosines.
        simplex: Cosine of balanced classes, -1/(K-1).
        title: Above the figure.
    """
    figure, (axes,) = canvas(1, (5.0, 3.6))
    axes.axhline(simplex, color="0.6", linestyle=":", label="balanced: $-1/(K-1)$")
    axes.plot(ratios, predicted, "-", color=LINE, label="layer-peeled model")
    axes.plot([ratio], [cosine], "o", color=POINTS, label="measured", zorder=3)
    axes.set_xscale("log")
    axes.set_ylim(-1.05 if min(cosine, simplex) < -0.5 else -0.55, 1.05)
    axes.set_xlabel("imbalance $R$: samples of a majority by a minority class")
    axes.set_ylabel("mean cosine of minority rows")
    axes.grid(True, alpha=0.3)
    axes.legend()
    axes.set_title(title)
    return figure
