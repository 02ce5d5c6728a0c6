"""A matplotlib figure to any logger, or into a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nc.loggers.kinds import folder_of, free_name, is_a


def log_figure(logger: Any, tag: str, figure: Any, step: int) -> None:
    """Log a matplotlib figure: as an image where the logger takes images, else as a PNG file.

    Args:
        logger: TensorBoard, W&B and Comet loggers get an image, MLflow an artifact
            ``figures/TAG/step_N.png``; for any other with a ``log_dir`` or ``save_dir`` a file of
            that name is written there.
        tag: Name of the figure.
        figure: A matplotlib ``Figure`` on an Agg canvas.
        step: Of the logger.
    """
    if is_a(logger, "DummyLogger"):  # a Trainer's fast_dev_run
        return
    if is_a(logger, "TensorBoardLogger"):
        logger.experiment.add_image(tag, _pixels(figure), global_step=step, dataformats="HWC")
    elif is_a(logger, "WandbLogger"):
        logger.log_image(key=tag, images=[_pixels(figure)], step=step)
    elif is_a(logger, "CometLogger"):
        logger.experiment.log_figure(figure_name=tag, figure=figure, step=step)
    elif is_a(logger, "MLFlowLogger"):
        run, files = logger.run_id, f"figures/{tag}"
        taken = {file.path for file in logger.experiment.list_artifacts(run, files)}
        name = _png(step, lambda name: f"{files}/{name}" in taken)
        logger.experiment.log_figure(run, figure, f"{files}/{name}")
    elif (folder := folder_of(logger)) is not None:
        save_figure(folder, tag, figure, step)


def save_figure(folder: str | Path, tag: str, figure: Any, step: int) -> None:
    """Write a figure to ``figures/TAG/step_N.png`` in a folder of this machine, never over another.

    Folders elsewhere, such as ``s3://...``, get none.
    """
    if "://" in str(folder):
        return
    files = Path(folder) / "figures" / tag
    files.mkdir(parents=True, exist_ok=True)
    figure.savefig(files / _png(step, lambda name: (files / name).exists()))


def _png(step: int, taken: Callable[[str], bool]) -> str:
    # with one batch per epoch, two measurements have the same step
    return free_name(f"step_{step:08d}", ".png", taken)


def _pixels(figure: Any) -> np.ndarray[Any, Any]:
    """The figure as (height, width, 3) bytes."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]
