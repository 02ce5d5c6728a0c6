"""Publish values to monitors on every process, and values and figures to loggers on the first.

Nothing here communicates: it comes after the last reduction of a measurement, so that a failure on
the first process keeps no other waiting.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning_nc.callbacks.messages import safely, say_once
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import give_to_monitors
from lightning_nc.callbacks.record import Record
from lightning_nc.figures.plotting import drawn, forget
from lightning_nc.figures.tables import Lines, Table
from lightning_nc.loggers.films import log_film, save_film
from lightning_nc.loggers.images import log_figure, save_figure
from lightning_nc.loggers.kinds import local_folder_of, send_alert, takes_files
from lightning_nc.loggers.panels import arrange_panels, bookkeeping_last
from lightning_nc.loggers.tables import log_table, takes_tables
from lightning_nc.measures import is_known
from lightning_nc.measures.bookkeeping import BOOKKEEPING, GROUP
from lightning_nc.measures.charts import charts_of
from lightning_nc.measures.family import Family, write_families
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.timeline import Timeline

Attempt = Callable[[str, Callable[[], Any]], None]  # does what the text says, see `safely`
Drawings = Mapping[str, Callable[[], Any]]  # by tag, a function that draws a figure
Films = Mapping[str, Callable[[Path], None]]  # by tag, a function that writes a GIF


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
    foreign = [Family.of(record.measure) for record in everything if not is_known(record.measure)]
    row = {**values, "epoch": moment.epoch}
    for logger in trainer.loggers:
        name = type(logger).__name__
        arrange = partial(arrange_panels, logger, charts, values)
        safely(trainer, told, f"arrange panels of {name}", arrange)
        shown = bookkeeping_last(logger, row, book, GROUP)
        log = partial(logger.log_metrics, shown, step=moment.step)
        safely(trainer, told, f"log to {name}", log)
        folder = local_folder_of(logger) if foreign else None
        if folder is not None:
            describe = partial(write_families, folder, foreign)
            safely(trainer, told, f"describe measures in the folder of {name}", describe)


def publish_figures_and_tables(trainer: Any, record: Record, measurement: Measurement) -> None:
    """Send the figures of a measurement to loggers and, outside of training, its tables."""
    if not (record.figures and trainer.is_global_zero):
        return
    timeline = record.timeline()
    if record.draws_now(measurement):
        publish_figures_of(trainer, record, timeline)
    if measurement.stage != "fit":
        publish_tables(trainer, record, timeline)


def publish_tables(trainer: Any, record: Record, timeline: Timeline) -> None:
    """Send the tables of the last measurement to the loggers that support tables."""
    if any(map(takes_tables, trainer.loggers)):
        attempt = partial(safely, trainer, record.told_of_run)

        def log_tables() -> None:
            tables = tagged(record.prefix, record.measure.tables(timeline))
            _log_tables(trainer, attempt, tables, timeline.last.step)

        attempt("make tables", log_tables)


def publish_figures_of(trainer: Any, record: Record, timeline: Timeline) -> None:
    """Draw the figures of a measurement, send them to the loggers, and take the time."""
    started = time.perf_counter()
    drawings = lambda: tagged(record.prefix, record.measure.draw(timeline))  # noqa: E731
    publish_figures(trainer, record.told_of_run, drawings, timeline.last.step)
    if timeline.last.stage == "fit":
        record.drawn = len(record.fitted())
    record.figure_seconds = time.perf_counter() - started


def publish_figures(
    trainer: Any, told: set[str], figures: Callable[[], Drawings], step: int
) -> None:
    """Draw figures and send them to the loggers, on the first process.

    Each figure is drawn and logged separately, so that a failure does not affect the others.
    Without a logger, and for loggers that have neither images nor a folder on this machine, they
    are written to the Trainer's ``default_root_dir``, except in runs that must leave no files
    (``fast_dev_run`` and ``barebones``).

    Args:
        trainer: The Trainer.
        told: Topics reported so far; a failure is reported once.
        figures: Returns the functions that draw the figures, by tag.
        step: The step under which to log.
    """
    attempt = partial(safely, trainer, told)
    if trainer.loggers or _leaves_files(trainer):
        attempt("draw figures", lambda: _log_figures(trainer, told, figures(), step))


def publish_films(trainer: Any, told: set[str], films: Callable[[], Films], step: int) -> None:
    """Make films and send them to the loggers, except in runs that must leave no files.

    Failures are worded as for figures, so that a cause they share is reported once.

    Args:
        trainer: The Trainer.
        told: Topics reported so far.
        films: Returns the functions that write the GIFs, by tag.
        step: The step under which to log.
    """
    attempt = partial(safely, trainer, told)
    if _leaves_files(trainer):
        attempt("draw figures", lambda: _log_films(trainer, told, films(), step))


def send_alerts(trainer: Any, told: set[str], title: str, text: str) -> None:
    """Send an alert through the loggers that support alerts, on the first process."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        what = f"send an alert through {type(logger).__name__}"
        safely(trainer, told, what, partial(send_alert, logger, title, text))


def tagged(prefix: str, by_name: Mapping[str, Any]) -> dict[str, Any]:
    """Return the items under tags, which have the same prefix as the logged keys."""
    return {prefix + name: value for name, value in by_name.items()}


def _leaves_files(trainer: Any) -> bool:
    return not (trainer.fast_dev_run or getattr(trainer, "barebones", False))


def _log_figures(trainer: Any, told: set[str], figures: Drawings, step: int) -> None:
    for tag, drawing in figures.items():
        log = partial(_log_figure, trainer, told, tag, drawing, step)
        safely(trainer, told, "draw a figure", log)


def _log_figure(
    trainer: Any, told: set[str], tag: str, drawing: Callable[[], Any], step: int
) -> None:
    figure = drawn(drawing)
    _log_to_all(
        trainer,
        told,
        "figures",
        lambda logger: log_figure(logger, tag, figure, step),
        lambda folder, logger: save_figure(folder, tag, figure, step, logger),
    )
    forget(figure)


def _log_films(trainer: Any, told: set[str], films: Films, step: int) -> None:
    for tag, make in films.items():
        safely(trainer, told, "draw a figure", partial(_log_film, trainer, told, tag, make, step))


def _log_film(
    trainer: Any, told: set[str], tag: str, make: Callable[[Path], None], step: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "film.gif")
        make(path)
        _log_to_all(
            trainer,
            told,
            "films",
            lambda logger: log_film(logger, tag, path, step),
            lambda folder, logger: save_film(folder, tag, path, logger),
        )


def _log_to_all(
    trainer: Any,
    told: set[str],
    what: str,
    log: Callable[[Any], bool],
    save: Callable[[Any, Any], Path | None],
) -> None:
    """Log a figure or film to all loggers, and save it where there is no other place for it.

    Args:
        trainer: The Trainer.
        told: Topics reported so far.
        what: What it is: figures or films.
        log: Logs to a logger, and says whether it or its folder has it now.
        save: Saves it in a folder, for a logger or None, and returns the file if there is one.
    """
    without: list[Any] = []

    def log_to(logger: Any) -> None:
        if not log(logger):
            without.append(logger)

    for logger in trainer.loggers:
        name = type(logger).__name__
        safely(trainer, told, f"log a figure to {name}", partial(log_to, logger))
    groups = [[logger] for logger in without if takes_files(logger)]
    plain = [logger for logger in without if not takes_files(logger)]
    if plain or not trainer.loggers:
        groups.append(plain)  # one file for all of them
    for loggers in groups:
        save_for = partial(_save_for, trainer, told, what, save, loggers)
        safely(trainer, told, "write a figure", save_for)


def _save_for(
    trainer: Any,
    told: set[str],
    what: str,
    save: Callable[[Any, Any], Path | None],
    loggers: Sequence[Any],
) -> None:
    """Save a figure or film for loggers that have no place for it, and say where it is."""
    # not `trainer.log_dir`: without loggers it is the same folder, and it communicates
    folder = trainer.default_root_dir
    saved = save(folder, next(iter(loggers), None)) is not None
    where = f"are in {Path(folder, 'figures')}"
    if not saved:
        where = f"are not kept, since {folder} is no folder of this machine, either"
    for logger in loggers:
        if not (saved and takes_files(logger)):
            name = type(logger).__name__
            text = f"{name} has no place for {what}, which {where}."
            say_once(trainer, told, f"place in {name}", text)


def _log_tables(
    trainer: Any, attempt: Attempt, tables: Mapping[str, Table | Lines], step: int
) -> None:
    for logger in trainer.loggers:
        for tag, table in tables.items():
            what = f"log a table to {type(logger).__name__}"
            attempt(what, partial(log_table, logger, tag, table, step))
