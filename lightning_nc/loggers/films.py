"""Log a film to any logger, or save it in a folder."""

import io
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning_nc.loggers.files import local_folder_of, path_of, save_file
from lightning_nc.loggers.images import track_image
from lightning_nc.loggers.kinds import is_a


def log_film(logger: Any, tag: str, film: Path, step: int) -> bool:
    """Log a GIF, as a video if the logger accepts videos, else as a file.

    Args:
        logger: W&B and Comet loggers get a video, Aim loggers an animated image, MLflow loggers an
            artifact ``figures/TAG.gif``, where TAG is the tag's `path_of`. For any other logger
            with a folder on this machine that file is written there, and given to the logger as in
            `log_figure`.
        tag: Name of the film.
        film: Path of the GIF; the file may be deleted afterwards.
        step: Step at which it is logged.

    Returns:
        Whether the logger or its folder has the film.
    """
    if is_a(logger, "DummyLogger"):
        return True
    if is_a(logger, "WandbLogger") and hasattr(logger, "log_video"):
        logger.log_video(key=tag, videos=[str(film)], step=step, format=["gif"])
    elif is_a(logger, "CometLogger"):
        content = io.BytesIO(film.read_bytes())  # Comet reads files only when it sends them, later
        logger.experiment.log_video(content, name=f"{tag}.gif", format="gif", step=step)
    elif is_a(logger, "AimLogger"):
        track_image(logger, tag, str(film), step)
    elif is_a(logger, "MLFlowLogger"):
        folder, _, name = path_of(tag).rpartition("/")
        with TemporaryDirectory() as temporary:
            named = shutil.copy(film, Path(temporary, f"{name}.gif"))
            logger.experiment.log_artifact(logger.run_id, str(named), f"figures/{folder}")
    else:
        log_dir = local_folder_of(logger)
        return log_dir is not None and save_film(log_dir, tag, film, logger) is not None
    return True


def save_film(folder: str | Path, tag: str, film: Path, logger: Any) -> Path | None:
    """Copy a GIF to ``figures/TAG.gif`` in a folder; see `save_file`."""
    return save_file(folder, path_of(tag), ".gif", partial(shutil.copy, film), logger)
