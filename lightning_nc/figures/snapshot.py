"""Snapshots of neural collapse, and their animation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from lightning_nc.figures.canvas import (
    LINE,
    POINTS,
    THIRD,
    Target,
    abridged,
    canvas,
    entitle_axes,
    legend,
    require_matplotlib,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Snapshot(NamedTuple):
    """Class means and classifier rows of three classes in a plane.

    Attributes:
        means: Class means, shape ``(3, 2)``.
        rows: Classifier rows, shape ``(3, 2)``.
        classes: The names of the three classes.
        title: Title of the figure.
    """

    means: Tensor
    rows: Tensor
    classes: Sequence[str]
    title: str


def snapshot_figure(snapshot: Snapshot, on: Target = None) -> "Figure":
    """Class means and classifier rows of three classes on the simplex that they collapse to."""
    figure, (axes,) = canvas(1, (4.6, 4.8), on)
    _draw(axes, snapshot)
    return figure


def save_snapshots(path: Path, snapshots: Sequence[Snapshot], frames_per_second: int) -> None:
    """Write an animation of snapshots as a GIF.

    Args:
        path: Path of the GIF.
        snapshots: What each frame shows.
        frames_per_second: Frame rate.
    """
    require_matplotlib()
    from PIL import Image  # a dependency of matplotlib

    from lightning_nc.figures.layout import fit_words

    figure: Any
    figure, (axes,) = canvas(1, (4.6, 4.8))
    frames = []
    for snapshot in snapshots:
        axes.clear()
        _draw(axes, snapshot)
        fit_words(figure)
        figure.canvas.draw()
        figure.set_layout_engine("none")  # all frames keep the first layout
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        frames.append(Image.fromarray(pixels).quantize(64))
    each = 1000 // frames_per_second
    durations = [each] * (len(frames) - 1) + [each + 2000]  # milliseconds; the last frame is held
    first, *others = frames
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)


def _draw(axes: Any, snapshot: Snapshot) -> None:
    means, rows, names, title = snapshot
    phi = np.pi * (0.5 + 2 * np.arange(4) / 3)
    axes.plot(np.cos(phi), np.sin(phi), ":", color="0.6", zorder=0, label="simplex")
    for k, colour in enumerate((POINTS, LINE, THIRD)):
        (x, y), (u, v) = means[k].tolist(), rows[k].tolist()
        axes.plot([0, x], [0, y], "-", color=colour, linewidth=2)
        axes.plot([x], [y], "o", color=colour, markersize=10)
        short = len(names[k]) <= 2  # fits into the dot; longer names stand above or below it
        place = {"xytext": (0, 0 if short else 12 if y > 0 else -12), "textcoords": "offset points"}
        style = {"color": "white" if short else colour, "ha": "center", "va": "center"}
        name = abridged(names[k])
        axes.annotate(name, (x, y), fontsize="small", parse_math=False, **place, **style)
        axes.plot([0, u], [0, v], "--", color=colour, linewidth=1.2)
        axes.plot([u], [v], "x", color=colour, markersize=8, markeredgewidth=2)
    axes.plot([], [], "o", color="0.3", label="class mean")
    axes.plot([], [], "x", color="0.3", label="classifier row")
    axes.set_xlim(-1.6, 1.6)
    axes.set_ylim(-1.5, 1.7)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    legend(axes, loc="upper right", ncols=3)
    entitle_axes(axes, title)
