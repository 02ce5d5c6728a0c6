"""Figures and films over the whole run, and tables, logged once at the end of training."""

from typing import Any

from lightning_nc.callbacks.publishing import (
    publish_figures,
    publish_figures_of,
    publish_films,
    publish_tables,
    tagged,
)
from lightning_nc.callbacks.record import Record
from lightning_nc.guards.generators import generators_kept


@generators_kept()  # plotting may use random numbers
def log_final_figures(trainer: Any, record: Record) -> None:
    """Log what a measure shows once, on the first process, without communication."""
    fitted = record.fitted()
    if not (fitted and record.figures and trainer.is_global_zero):
        return
    timeline, measure, prefix = record.timeline_of(fitted), record.measure, record.prefix
    step = timeline.last.step
    if record.drawn != timeline.last.epochs_completed:
        publish_figures_of(trainer, record, timeline)
    figures = lambda: tagged(prefix, measure.draw_at_end(timeline))  # noqa: E731
    publish_figures(trainer, record.told, figures, step)
    publish_films(trainer, record.told, lambda: tagged(prefix, measure.films(timeline)), step)
    publish_tables(trainer, record, timeline)
