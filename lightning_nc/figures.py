"""Measurements as matplotlib figures; drawn without pyplot, so that no window or state is left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_nc.functional.separation import separation_law

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS, _LINE = "#0072B2", "#D55E00"  # of the palette by Okabe and Ito, safe for the colour-blind


def separation_figure(names: Sequence[str], fuzziness: Tensor, title: str) -> "Figure":
    """D against depth on a logarithmic axis, with the line of the law and its rho and r.

    Args:
        names: Of the points, in depth.
        fuzziness: D at each, shape ``(T,)``.
        title: Above the figure.
    """
    figure, (axes,) = _figure(1, (5.4, 4.0))
    draw_law(axes, fuzziness)
    depth = np.arange(len(names))
    shown = depth if len(names) <= 12 else depth[:: -(-len(names) // 12)]
    axes.set_xticks(shown, [_short(names[t]) for t in shown], rotation=45, ha="right")
    axes.set_ylabel("separation fuzziness $D$")
    axes.set_title(title)
    return figure


def draw_law(axes: Any, fuzziness: Tensor) -> None:
    """D against depth and the fitted law, on axes of one's own.

    Args:
        axes: Of matplotlib.
        fuzziness: D at each point in depth, shape ``(T,)``.
    """
    D = fuzziness.double().cpu()
    t = torch.arange(len(D))
    axes.plot(t, D.numpy(), "o", color=_POINTS, zorder=3)
    if bool((D > 0).any()):
        axes.set_yscale("log")
    law = separation_law(D) if len(D) > 1 else None
    if law is not None and bool(law.rho.isfinite()):
        fit = (law.intercept + t * law.rho.log()).exp()
        axes.plot(t, fit.numpy(), "-", color=_LINE)
        label = f"$\\rho$ = {float(law.rho):.3f}\n$r$ = {float(law.pearson_r):.3f}"
        axes.text(0.97, 0.95, label, transform=axes.transAxes, ha="right", va="top")
    axes.grid(True, which="major", alpha=0.3)


def cosine_figure(cosines: dict[str, Tensor], title: str) -> "Figure":
    """K x K cosines of class vectors; at neural collapse all but the diagonal are -1/(K-1).

    Args:
        cosines: Matrices of shape ``(K, K)`` by what they are of.
        title: Above the figure.
    """
    figure, all_axes = _figure(len(cosines), (4.0 * len(cosines) + 0.8, 4.1))
    for axes, (name, matrix) in zip(all_axes, cosines.items(), strict=True):
        K = len(matrix)
        image = axes.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        ticks = np.arange(K) if K <= 10 else np.arange(0, K, -(-K // 10))
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        axes.set_xlabel("class")
        axes.set_title(name)
    all_axes[0].set_ylabel("class")
    figure.colorbar(image, ax=list(all_axes), shrink=0.8, label="cosine")
    ideal = f"ideal off the diagonal: -1/(K-1) = {-1 / (K - 1):.3f}"
    figure.suptitle(f"{title}; {ideal}", fontsize="medium")
    return figure


def _figure(columns: int, size: tuple[float, float]) -> tuple["Figure", Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _short(name: str) -> str:
    """The end of a long module name."""
    return name if len(name) <= 18 else "…" + name[-17:]
