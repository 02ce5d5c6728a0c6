"""Log a matplotlib figure to any logger, or save it in a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nc.loggers.kinds import folder_of, free_name, is_a, path_of


def log_figure(logger: Any, tag: str, figure: Any, step: int) -> None:
    """Log a matplotlib figure, as an image if the logger accepts images, else as a PNG file.

    Args:
        logger: TensorBoard, W&B and Comet loggers get an image, MLflow loggers an artifact
            ``figures/TAG/step_N.png``, where TAG is the tag's `path_of`. For any other logger with
            a ``log_dir`` or ``save_dir``, that file is written there.
        tag: Name of the figure.
        figure: A matplotlib ``Figure`` on an Agg canvas.
        step: Step at which it is logged.
    """
    if is_a(logger, "DummyLogger"):  # Lightning's logger under fast_dev_run
        return
    if is_a(logger, "TensorBoardLogger"):
        logger.experiment.add_image(tag, _pixels(figure), global_step=step, dataformats="HWC")
    elif is_a(logger, "WandbLogger"):
        logger.log_image(key=tag, images=[_pixels(figure)], step=step)
    elif is_a(logger, "CometLogger"):
        logger.experiment.log_figure(figure_name=tag, figure=figure, step=step)
    elif is_a(logger, "MLFlowLogger"):
        run, files = logger.run_id, f"figures/{path_of(tag)}"
        taken = {file.path for file in logger.experiment.list_artifacts(run, files)}
        name = _png(step, lambda name: f"{files}/{name}" in taken)
        logger.experiment.log_figure(run, figure, f"{files}/{name}")
    elif (folder := folder_of(logger)) is not None:
        save_figure(folder, tag, figure, step)


def save_figure(folder: str | Path, tag: str, figure: Any, step: int) -> None:
    """Write a figure to ``figures/TAG/step_N.png`` in a local folder, without overwriting a file.

    Nothing is written to a remote folder, such as ``s3://...``.

    Args:
        folder: The logger's folder.
        tag: Name of the figure.
        figure: A matplotlib ``Figure``.
        step: Step in the name of the file.
    """
    if "://" in str(folder):
        return
    files = Path(folder) / "figures" / path_of(tag)
    files.mkdir(parents=True, exist_ok=True)
    path = files / _png(step, lambda name: (files / name).exists())
    from PIL import Image  # a dependency of matplotlib

    # the pixels may have been drawn for another logger; level 1 takes a third of the time of 6
    Image.fromarray(_pixels(figure)).save(path, compress_level=1)


def _png(step: int, taken: Callable[[str], bool]) -> str:
    # with one batch per epoch, two measurements can have the same step
    return free_name(f"step_{step:08d}", ".png", taken)


def _pixels(figure: Any) -> np.ndarray[Any, Any]:
    """The pixels of a figure as bytes, shape ``(height, width, 3)``; it is drawn once."""
    if not hasattr(figure.canvas, "buffer_rgba"):  # a figure of a measure of the user's
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        FigureCanvasAgg(figure)
    if figure.stale:
        figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
