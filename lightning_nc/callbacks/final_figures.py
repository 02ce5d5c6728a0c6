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
def log_final_figures(trainer: Any, record: Record, films: bool = True) -> None:
    """Log what a measure shows once, on the first process, without communication.

    A run that was resumed and has measured nothing since logs nothing: its figures were logged when
    it ended before, also by an exception.

    Args:
        trainer: The Trainer.
        record: The record of the callback.
        films: Whether to make films, which take longer than figures.
    """
    fitted = record.fitted()
    if len(fitted) == record.concluded or not (record.figures and trainer.is_global_zero):
        return
    record.concluded = len(fitted)
    timeline, measure, prefix = record.timeline_of(fitted), record.measure, record.prefix
    step = timeline.last.step
    if record.drawn != len(fitted):
        publish_figures_of(trainer, record, timeline)
    figures = lambda: tagged(prefix, measure.draw_at_end(timeline))  # noqa: E731
    publish_figures(trainer, record.told_of_run, figures, step)
    if films:
        films_of = lambda: tagged(prefix, measure.films(timeline))  # noqa: E731
        publish_films(trainer, record.told_of_run, films_of, step)
    publish_tables(trainer, record, timeline)
