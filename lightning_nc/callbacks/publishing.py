"""Publish values to monitors on every process, and values, tables and alerts to loggers on one.

Nothing here communicates: it comes after the last reduction of a measurement, so that a failure on
the first process keeps no other waiting.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lightning_nc.callbacks.messages import safely
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import give_to_monitors
from lightning_nc.callbacks.record import Record
from lightning_nc.loggers.files import local_folder_of
from lightning_nc.loggers.kinds import send_alert
from lightning_nc.loggers.panels import arrange_panels, bookkeeping_last
from lightning_nc.loggers.tables import log_table, takes_tables
from lightning_nc.measures import MEASURES
from lightning_nc.measures.bookkeeping import BOOKKEEPING, GROUP
from lightning_nc.measures.charts import charts_of
from lightning_nc.measures.family import Family, write_families
from lightning_nc.measures.timeline import Timeline


def publish_values(
    trainer: Any,
    told: set[str],
    everything: Sequence[Record],
    values: Mapping[str, float],
    moment: Moment,
) -> None:
    """Pass values to the Trainer's monitors and, in one row, to its loggers.

    Args:
        trainer: The Trainer.
        told: Topics reported so far; a failure is reported once.
        everything: Records of all our callbacks in the Trainer, for the layout of dashboards.
        values: Scalars by logged key.
        moment: When they were measured.
    """
    give_to_monitors(trainer, values)
    if not (trainer.is_global_zero and trainer.loggers):
        return
    charts = charts_of((record.measure, record.probe.key) for record in everything)
    book = {record.prefix + row.name for record in everything for row in BOOKKEEPING}
    measures = [record.measure for record in everything]
    # the report knows the families of this package
    foreign = [Family.of(each) for each in measures if type(each) not in MEASURES]
    row = {**values, "epoch": moment.epoch}
    for logger in trainer.loggers:
        name = type(logger).__name__
        arrange = partial(arrange_panels, logger, charts, values)
        safely(trainer, told, f"arrange panels of {name}", arrange)
        shown = dict(bookkeeping_last(logger, row, book, GROUP))  # a logger may change its own
        log = partial(logger.log_metrics, shown, step=moment.step)
        safely(trainer, told, f"log to {name}", log)
        describe = partial(_describe, logger, foreign)
        safely(trainer, told, f"describe measures in the folder of {name}", describe)


def _describe(logger: Any, families: Sequence[Family]) -> None:
    """Describe families in the folder of a logger, if there are any and it has one."""
    folder = local_folder_of(logger) if families else None
    if folder is not None:
        write_families(folder, families)


def publish_tables(trainer: Any, record: Record, timeline: Timeline) -> None:
    """Send the tables of the last measurement to the loggers that support tables."""

    def log_tables() -> None:
        tables = record.measure.tables(timeline)
        for logger in trainer.loggers:
            for name, table in tables.items():
                log = partial(log_table, logger, record.prefix + name, table, timeline.last.step)
                what = f"log a table to {type(logger).__name__}"
                safely(trainer, record.told_of_run, what, log)

    if any(map(takes_tables, trainer.loggers)):
        safely(trainer, record.told_of_run, "make tables", log_tables)


def send_alerts(trainer: Any, told: set[str], title: str, text: str) -> None:
    """Send an alert through the loggers that support alerts, on the first process."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        what = f"send an alert through {type(logger).__name__}"
        safely(trainer, told, what, partial(send_alert, logger, title, text))
