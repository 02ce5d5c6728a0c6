"""Snapshots of neural collapse, and the film made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lightning_nc.figures.canvas import LINE, POINTS, THIRD, canvas, literal, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def snapshot_figure(means: Tensor, rows: Tensor, title: str) -> "Figure":
    """Class means and classifier rows of three classes on the simplex that they collapse to.

    Args:
        means: Class means in the plane, shape ``(3, 2)``.
        rows: Classifier rows in the plane, shape ``(3, 2)``.
        title: Title of the figure.
    """
    figure, (axes,) = canvas(1, (4.6, 4.8))
    _draw(axes, means, rows, title)
    return figure


def save_snapshots(
    path: Path, snapshots: Sequence[tuple[Tensor, Tensor, str]], frames_per_second: int
) -> None:
    """Write a film of snapshots as a GIF.

    Args:
        path: Path of the GIF.
        snapshots: Means, rows and title of each frame, as in `snapshot_figure`.
        frames_per_second: Frame rate.
    """
    require_matplotlib()
    from PIL import Image  # a dependency of matplotlib

    figure: Any
    figure, (axes,) = canvas(1, (4.6, 4.8))
    frames = []
    for snapshot in snapshots:
        axes.clear()
        _draw(axes, *snapshot)
        figure.canvas.draw()
        figure.set_layout_engine("none")  # all frames keep the first layout
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        frames.append(Image.fromarray(pixels).quantize(64))
    each = 1000 // frames_per_second
    durations = [each] * (len(frames) - 1) + [each + 2000]  # milliseconds; the last frame is held
    first, *others = frames
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)


def _draw(axes: Any, means: Tensor, rows: Tensor, title: str) -> None:
    """Draw means and rows, shape ``(3, 2)`` each, on axes."""
    phi = np.pi * (0.5 + 2 * np.arange(4) / 3)
    axes.plot(np.cos(phi), np.sin(phi), ":", color="0.6", zorder=0, label="simplex")
    for k, colour in enumerate((POINTS, LINE, THIRD)):
        (x, y), (u, v) = means[k].tolist(), rows[k].tolist()
        axes.plot([0, x], [0, y], "-", color=colour, linewidth=2)
        axes.plot([x], [y], "o", color=colour, markersize=10)
        axes.annotate(str(k), (x, y), color="white", ha="center", va="center", fontsize="small")
        axes.plot([0, u], [0, v], "--", color=colour, linewidth=1.2)
        axes.plot([u], [v], "x", color=colour, markersize=8, markeredgewidth=2)
    axes.plot([], [], "o", color="0.3", label="class mean")
    axes.plot([], [], "x", color="0.3", label="classifier row")
    axes.set_xlim(-1.6, 1.6)
    axes.set_ylim(-1.5, 1.7)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="upper right", fontsize="small", ncols=3)
    axes.set_title(literal(title))
