"""Where values go: to monitors on every process, to loggers and figures on the first."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lightning_nc.callbacks.monitors import monitor
from lightning_nc.callbacks.processes import tell
from lightning_nc.loggers import log_figure, send_alert


def publish(
    trainer: Any,
    values: Mapping[str, float],
    step: int,
    epoch: int,
    figures: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
    """Give values to the Trainer's monitors and loggers, without communication.

    Args:
        trainer: The Trainer.
        values: Scalars under their keys.
        step: Of the loggers.
        epoch: Lightning's number of the epoch, from 0.
        figures: Draws figures, by tag; called on the first process if there is a logger.
    """
    monitor(trainer, values)
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        metrics = {**values, "epoch": epoch}
        log = partial(logger.log_metrics, metrics, step=step)
        _safely(trainer, f"log to {type(logger).__name__}", log)
    if figures is not None and trainer.loggers:
        _safely(trainer, "draw figures", lambda: _log_figures(trainer, figures(), step))


def alert(trainer: Any, title: str, text: str) -> None:
    """Send a message by those loggers that can; on the first process."""
    for logger in trainer.loggers:
        what = f"send an alert by {type(logger).__name__}"
        _safely(trainer, what, partial(send_alert, logger, title, text))


def _log_figures(trainer: Any, figures: Mapping[str, Any], step: int) -> None:
    for logger in trainer.loggers:
        for tag, figure in figures.items():
            what = f"log a figure to {type(logger).__name__}"
            _safely(trainer, what, partial(log_figure, logger, tag, figure, step))


def _safely(trainer: Any, what: str, do: Callable[[], Any]) -> None:
    """A logger that fails must not cost the run, nor can it hang: nothing is communicated here."""
    try:
        do()
    except Exception as error:
        tell(trainer, f"Could not {what}: {error!r}")
