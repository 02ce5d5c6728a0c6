"""The law of equi-separation: D against depth."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_nc.figures.canvas import (
    COLOURS,
    LINE,
    POINTS,
    canvas,
    label_depth,
    require_matplotlib,
)
from lightning_nc.functional.separation import separation_law

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAPER_R = -0.997  # of the network that the paper shows first


def separation_figure(names: Sequence[str], fuzziness: Tensor, title: str) -> "Figure":
    """D against depth on a logarithmic axis, with the line of the law and its rho and r.

    Args:
        names: Of the points, in depth.
        fuzziness: D at each, shape ``(T,)``.
        title: Above the figure.
    """
    figure, (axes,) = canvas(1, (5.4, 4.0))
    draw_law(axes, fuzziness, _PAPER_R)
    label_depth(axes, names)
    axes.set_title(title)
    return figure


def draw_law(axes: Any, fuzziness: Tensor, reference: float | None = None) -> None:
    """D against depth and the fitted law, on axes of one's own.

    Args:
        axes: Of matplotlib.
        fuzziness: D at each point in depth, shape ``(T,)``.
        reference: The correlation r that He & Su have, to be shown beside that of the fit.
    """
    D = fuzziness.double().cpu()
    t = torch.arange(len(D))
    axes.plot(t, D.numpy(), "o", color=POINTS, zorder=3)
    if bool((D > 0).any()):
        axes.set_yscale("log")
    law = separation_law(D) if len(D) > 1 else None
    if law is not None and bool(law.rho.isfinite()):
        fit = (law.intercept + t * law.rho.log()).exp()
        axes.plot(t, fit.numpy(), "-", color=LINE)
        label = f"$\\rho$ = {float(law.rho):.3f}\n$r$ = {float(law.pearson_r):.3f}"
        side, x = ("left", 0.03) if float(law.rho) > 1 else ("right", 0.97)  # away from the line
        where = {"transform": axes.transAxes, "ha": side, "va": "top"}
        axes.text(x, 0.95, label, **where)
        if reference is not None:
            says = f"(He & Su: $r$ = {reference})"
            axes.text(x, 0.81, says, color="0.5", fontsize="small", **where)
    axes.grid(True, which="major", alpha=0.3)


def class_separation_figure(
    names: Sequence[str], class_fuzziness: Tensor, fuzziness: Tensor, title: str
) -> "Figure":
    """D of each class against depth, beside that of all; the law holds for each.

    Args:
        names: Of the points, in depth.
        class_fuzziness: D of each class at each point, shape ``(T, K)``.
        fuzziness: D at each, shape ``(T,)``.
        title: Above the figure.
    """
    figure, (axes,) = canvas(1, (5.4, 4.0))
    depth = np.arange(len(names))
    K = len(class_fuzziness.mT)
    faint = 0.45 if K <= 20 else 0.2
    axes.plot([], [], "-", color=POINTS, linewidth=1, label=f"one of {K} classes")
    for D_k in class_fuzziness.mT:
        axes.plot(depth, D_k.numpy(), "-", color=POINTS, alpha=faint, linewidth=1)
    # which classes are told apart worst and best in the end
    for k in {int(class_fuzziness[-1].argmax()), int(class_fuzziness[-1].argmin())}:
        end = (len(names) - 1, float(class_fuzziness[-1, k]))
        axes.annotate(
            str(k), end, xytext=(4, 0), textcoords="offset points", va="center", color=POINTS
        )
    axes.margins(x=0.08)  # room for these
    axes.plot(depth, fuzziness.numpy(), "o-", color=LINE, label="all classes", zorder=3)
    if bool((fuzziness > 0).any()):
        axes.set_yscale("log")
    label_depth(axes, names)
    axes.legend(fontsize="small")
    axes.set_title(title)
    return figure


def separation_comparison_figure(
    names: Sequence[str], fuzziness: dict[str, Tensor], title: str
) -> "Figure":
    """D against depth on several data sets, such as training and validation data.

    Args:
        names: Of the points, in depth.
        fuzziness: D at each, shape ``(T,)``, by what it is of.
        title: Above the figure.
    """
    figure, (axes,) = canvas(1, (5.4, 4.0))
    for (name, D), colour in zip(fuzziness.items(), cycle(COLOURS), strict=False):
        axes.plot(np.arange(len(names)), D.numpy(), "o-", color=colour, label=name)
    axes.set_yscale("log")
    label_depth(axes, names)
    axes.legend(fontsize="small")
    axes.set_title(title)
    return figure


def separation_epochs_figure(
    names: Sequence[str], epochs: Sequence[float], fuzziness: Sequence[Tensor], title: str
) -> "Figure":
    """D against depth, one line per measurement from dark to light, in steps of one shade.

    Args:
        names: Of the points, in depth.
        epochs: Epochs completed.
        fuzziness: D at each point, shape ``(T,)``, by epoch.
        title: Above the figure.
    """
    require_matplotlib()
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, (axes,) = canvas(1, (5.8, 4.0))
    # by number, since epochs are often measured the more sparsely the later; and not to the very
    # end of the map, whose yellow is pale on white
    last = max(len(epochs) - 1, 1)
    colours, scale = colormaps["viridis"], Normalize(0, last / 0.9)
    depth = np.arange(len(names))
    for number, D in enumerate(fuzziness):
        axes.plot(depth, D.numpy(), ".-", color=colours(scale(number)), linewidth=1)
    if any(bool((D > 0).any()) for D in fuzziness):
        axes.set_yscale("log")
    label_depth(axes, names)
    shown = sorted(set(np.linspace(0, len(epochs) - 1, 10).round().astype(int).tolist()))
    mapped = ScalarMappable(scale, colours)
    bar = figure.colorbar(mapped, ax=axes, label="epochs completed", ticks=shown)
    bar.ax.set_yticklabels([f"{epochs[number]:g}" for number in shown])
    bar.ax.set_ylim(0, last)
    axes.set_title(title)
    return figure
