"""Log a film to any logger, or save it in a folder."""

import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning_nc.loggers.kinds import folder_of, free_name, is_a, path_of


def log_film(logger: Any, tag: str, film: Path, step: int) -> None:
    """Log a GIF, as a video if the logger accepts videos, else as a file.

    Args:
        logger: W&B and Comet loggers get a video, MLflow loggers an artifact ``figures/TAG.gif``,
            where TAG is the tag's `path_of`. For any other logger with a ``log_dir`` or
            ``save_dir``, that file is written there.
        tag: Name of the film.
        film: Path of the GIF; the file may be deleted afterwards.
        step: Step at which it is logged.
    """
    if is_a(logger, "WandbLogger") and hasattr(logger, "log_video"):
        logger.log_video(key=tag, videos=[str(film)], step=step, format=["gif"])
    elif is_a(logger, "CometLogger"):
        content = io.BytesIO(film.read_bytes())  # Comet reads files only when it sends them, later
        logger.experiment.log_video(content, name=f"{tag}.gif", format="gif", step=step)
    elif is_a(logger, "MLFlowLogger"):
        folder, _, name = path_of(tag).rpartition("/")
        with TemporaryDirectory() as temporary:
            named = shutil.copy(film, Path(temporary, f"{name}.gif"))
            logger.experiment.log_artifact(logger.run_id, str(named), f"figures/{folder}")
    elif (log_dir := folder_of(logger)) is not None:
        save_film(log_dir, tag, film)


def save_film(folder: str | Path, tag: str, film: Path) -> None:
    """Copy a GIF to ``figures/TAG.gif`` in a local folder, without overwriting a file.

    Nothing is written to a remote folder, such as ``s3://...``.

    Args:
        folder: The logger's folder.
        tag: Name of the film.
        film: Path of the GIF.
    """
    if "://" in str(folder):
        return
    path = Path(folder, "figures", path_of(tag))
    path.parent.mkdir(parents=True, exist_ok=True)
    name = free_name(path.name, ".gif", lambda name: (path.parent / name).exists())
    shutil.copy(film, path.parent / name)
