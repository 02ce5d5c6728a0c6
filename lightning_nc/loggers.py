"""A figure to any of Lightning's loggers."""

from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np


def log_figure(logger: Any, tag: str, figure: Any, step: int) -> None:
    """Log a matplotlib figure: as an image where the logger takes images, else as a PNG file.

    Loggers are told apart by class name, since Lightning's two namespaces have a class each and
    either works in the other's Trainer.

    Args:
        logger: TensorBoard and W&B loggers get an image; for any other with a ``log_dir`` or
            ``save_dir`` a file ``figures/TAG/step_N.png`` is written there.
        tag: Name of the figure.
        figure: A matplotlib ``Figure`` on an Agg canvas.
        step: Of the logger.
    """
    kinds = {kind.__name__ for kind in type(logger).__mro__}
    if "DummyLogger" in kinds:  # a Trainer's fast_dev_run
        return
    if "TensorBoardLogger" in kinds:
        logger.experiment.add_image(tag, _pixels(figure), global_step=step, dataformats="HWC")
    elif "WandbLogger" in kinds:
        logger.log_image(key=tag, images=[_pixels(figure)], step=step)
    else:
        folder = getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None)
        if folder is not None:
            files = Path(folder) / "figures" / tag
            files.mkdir(parents=True, exist_ok=True)
            # with one batch per epoch, two measurements have the same step
            again = chain([""], map("-{}".format, count(2)))
            names = (f"step_{step:08d}{suffix}.png" for suffix in again)
            figure.savefig(next(files / name for name in names if not (files / name).exists()))


def send_alert(logger: Any, title: str, text: str) -> None:
    """Send a message by a logger that can: W&B writes mails."""
    if any(kind.__name__ == "WandbLogger" for kind in type(logger).__mro__):
        logger.experiment.alert(title=title, text=text)


def _pixels(figure: Any) -> np.ndarray[Any, Any]:
    """The figure as (height, width, 3) bytes."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]
