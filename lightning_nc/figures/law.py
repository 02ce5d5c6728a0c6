"""The law of a value against depth: its points, the fitted line, and what is written of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_nc.figures.canvas import (
    FUZZINESS,
    LINE,
    POINTS,
    Target,
    canvas,
    entitle_axes,
    label_depth,
    logarithmic,
)
from lightning_nc.figures.epochs import draw_curve
from lightning_nc.functional.separation import SeparationLaw, separation_law

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = 30  # layers up to which each has a marker
_PAPER_R = -0.997  # of the first network in the paper by He & Su

_Text: TypeAlias = tuple[str, dict[str, Any]]  # a text and its style


def separation_figure(
    names: Sequence[str],
    fuzziness: Tensor,
    title: str,
    reference: float | None = _PAPER_R,
    label: str = FUZZINESS,
    on: Target = None,
) -> "Figure":
    """D against depth on a logarithmic axis, with the line of the law, its rho and its r.

    Args:
        names: Layers in order of depth.
        fuzziness: D at each layer, shape ``(T,)``, or another value that obeys such a law.
        title: Title of the figure.
        reference: The correlation r of He & Su, shown below that of the fit.
        label: Label of the value.
        on: Where to draw, see `canvas`.
    """
    figure, (axes,) = canvas(1, (5.4, 4.0), on)
    draw_law(axes, fuzziness, reference)
    label_depth(axes, names, label)
    entitle_axes(axes, title)
    return figure


def draw_law(axes: Any, fuzziness: Tensor, reference: float | None = None) -> None:
    """Draw D against depth and the fitted law on existing axes.

    Args:
        axes: Matplotlib axes.
        fuzziness: D at each layer, in order of depth, shape ``(T,)``.
        reference: The correlation r of He & Su, shown below that of the fit.
    """
    D = fuzziness.double().cpu()
    t = torch.arange(len(D))
    is_logarithmic = bool((D > 0).any())
    if is_logarithmic:
        logarithmic(axes.yaxis)
    size = 6 if len(D) <= MARKERS else 3
    look: dict[str, Any] = {"color": POINTS, "markersize": size, "zorder": 3}
    draw_curve(axes, t.tolist(), D.tolist(), "none", **look)
    points, texts = [np.column_stack((t, D))], list[_Text]()
    law = separation_law(D) if len(D) > 1 else None
    if law is not None and bool(law.rho.isfinite()):
        fit = (law.intercept + t * law.rho.log()).exp()
        axes.plot(t, fit.numpy(), "-", color=LINE)
        points.append(np.column_stack((t, fit)))
        texts = _law_in_words(law, reference)
    elif is_logarithmic and bool((D == 0).any()):
        texts = [("hollow: 0", {})]
    if texts:
        rises = law is not None and bool(law.rho > 1)
        _write_in_free_corner(axes, texts, np.concatenate(points), rises)
    axes.grid(True, which="major", alpha=0.3)


def _law_in_words(law: SeparationLaw, reference: float | None) -> list[_Text]:
    """What is written of a law; nothing of r where it is undefined, as of two layers."""
    rho = f"\N{GREEK SMALL LETTER RHO} = {float(law.rho):.3f}"
    if not bool(law.pearson_r.isfinite()):
        return [(rho, {})]
    own: _Text = (f"{rho}\nr = {float(law.pearson_r):.3f}", {})
    of_paper = f"(He & Su: r = {reference},\nbatch statistics)"
    known = reference is not None
    return [own, (of_paper, {"color": "0.5", "fontsize": "small"})] if known else [own]


def _write_in_free_corner(axes: Any, texts: Sequence[_Text], points: Any, rises: bool) -> None:
    """Write texts below each other in the corner that `_free_corner` finds."""
    right, top = _free_corner(axes, points, rises)
    side, x = ("right", 0.97) if right else ("left", 0.03)
    place: dict[str, Any] = {"xy": (x, 0.95 if top else 0.05), "xycoords": axes.transAxes}
    for text, style in texts if top else texts[::-1]:
        place |= {"ha": side, "va": "top" if top else "bottom"}
        drawn_text = axes.annotate(text, **place, **style)
        drawn_text.set_in_layout(False)  # as a legend, see `legend`
        # the other is next to it, also in small axes, and a point away
        gap = {"xytext": (0, -1 if top else 1), "textcoords": "offset points"}
        place = {"xy": (right, not top), "xycoords": drawn_text, **gap}


def _free_corner(axes: Any, drawn: Any, rises: bool) -> tuple[bool, bool]:
    """The corner of axes where least is drawn: whether on the right, and whether at the top.

    Args:
        axes: Matplotlib axes.
        drawn: Points in data coordinates, shape ``(n, 2)``.
        rises: Whether these rise from left to right; of equal corners, one off this line is taken.
    """
    axes.autoscale_view()  # or the limits are those of before
    x, y = axes.transAxes.inverted().transform(axes.transData.transform(drawn)).T

    def near(corner: tuple[bool, bool]) -> int:
        right, top = corner
        return int(((abs(x - right) < 0.4) & (abs(y - top) < 0.35)).sum())

    return min([(not rises, True), (rises, False), (rises, True), (not rises, False)], key=near)
