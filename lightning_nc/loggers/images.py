"""Log a matplotlib figure to any logger, or save it in a folder."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nc.loggers.files import free_name, local_folder_of, path_of, save_file
from lightning_nc.loggers.kinds import is_a


def log_figure(logger: Any, tag: str, figure: Any, step: int) -> bool:
    """Log a matplotlib figure, as an image if the logger accepts images, else as a PNG file.

    Args:
        logger: TensorBoard, Comet and Aim loggers get an image, MLflow loggers an artifact
            ``figures/TAG/step_N.png``, where TAG is the tag's `path_of`, and DVCLive loggers an
            image ``TAG/N.png``, of which DVC shows all N with a slider. Loggers with a method
            ``log_image(key, images, step)``, such as that of W&B, get an image. For any other
            logger with a folder on this machine the file is written there; if it has a method
            ``log_file(path)``, it gets the path, in which parts of TAG are separated by dots, since
            the logger may use the name of the file alone.
        tag: Name of the figure.
        figure: A matplotlib ``Figure`` on an Agg canvas.
        step: Step at which it is logged.

    Returns:
        Whether the logger or its folder has the figure.
    """
    if is_a(logger, "DummyLogger"):  # Lightning's logger under fast_dev_run
        return True
    if is_a(logger, "TensorBoardLogger"):
        logger.experiment.add_image(tag, _pixels(figure), global_step=step, dataformats="HWC")
    elif is_a(logger, "CometLogger"):
        logger.experiment.log_figure(figure_name=tag, figure=figure, step=step)
    elif is_a(logger, "MLFlowLogger"):
        run, files = logger.run_id, f"figures/{path_of(tag)}"
        taken = {file.path for file in logger.experiment.list_artifacts(run, files)}
        name = free_name(_stem(step), ".png", lambda name: f"{files}/{name}" in taken)
        logger.experiment.log_figure(run, figure, f"{files}/{name}")
    elif is_a(logger, "AimLogger"):
        track_image(logger, tag, _pixels(figure), step)
    elif is_a(logger, "DVCLiveLogger"):
        images = Path(logger.experiment.plots_dir, "images")
        name = free_name(f"{path_of(tag)}/{step}", ".png", lambda name: (images / name).exists())
        logger.experiment.log_image(name, _pixels(figure))
    elif _takes_images(logger):
        logger.log_image(key=tag, images=[_pixels(figure)], step=step)
    else:
        folder = local_folder_of(logger)
        return folder is not None and save_figure(folder, tag, figure, step, logger) is not None
    return True


def track_image(logger: Any, tag: str, image: Any, step: int) -> None:
    """Log pixels, or a file that may be a GIF, to an Aim logger."""
    logger.experiment.track(import_module("aim").Image(image), name=tag, step=step)


def save_figure(
    folder: str | Path, tag: str, figure: Any, step: int, logger: Any = None
) -> Path | None:
    """Write a figure to ``figures/TAG/step_N.png`` in a folder; see `save_file`."""

    def write(path: Path) -> None:
        from PIL import Image  # a dependency of matplotlib

        # the pixels may have been drawn for another logger; level 1 takes a third of the time of 6
        Image.fromarray(_pixels(figure)).save(path, compress_level=1)

    return save_file(folder, f"{path_of(tag)}/{_stem(step)}", ".png", write, logger)


def _takes_images(logger: Any) -> bool:
    """Whether a logger has ``log_image`` with the arguments of that of W&B."""
    try:
        inspect.signature(logger.log_image).bind(key="", images=[], step=0)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _stem(step: int) -> str:
    return f"step_{step:08d}"


def _pixels(figure: Any) -> np.ndarray[Any, Any]:
    """The pixels of a figure as bytes, shape ``(height, width, 3)``; it is drawn once."""
    if not hasattr(figure.canvas, "buffer_rgba"):  # a figure of a measure of the user's
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        FigureCanvasAgg(figure)
    if figure.stale:
        from matplotlib import rc_context

        # fitting letters to pixels takes a tenth of the time, and is hardly seen
        with rc_context({"text.hinting": "none"}):
            figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
