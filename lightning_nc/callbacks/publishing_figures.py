"""Send figures and films to loggers, or into files, on the first process, without communication.

Each figure is drawn and logged separately, so that a failure does not affect the others.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning_nc.callbacks.messages import safely, say_once
from lightning_nc.callbacks.publishing import publish_tables
from lightning_nc.callbacks.record import Record
from lightning_nc.figures.plotting import drawn, forget
from lightning_nc.guards.generators import generators_kept
from lightning_nc.loggers.files import takes_files
from lightning_nc.loggers.films import log_film, save_film
from lightning_nc.loggers.images import log_figure, save_figure
from lightning_nc.measures.measure import Drawing
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.timeline import Timeline


def publish_figures_and_tables(trainer: Any, record: Record, measurement: Measurement) -> None:
    """Send the figures of a measurement to loggers and, outside of training, its tables."""
    if not (record.figures and trainer.is_global_zero):
        return
    timeline = record.timeline()
    if record.draws_now(measurement):
        _publish_figures_of(trainer, record, timeline)
    if measurement.stage != "fit":
        publish_tables(trainer, record, timeline)


@generators_kept()  # plotting may use random numbers
def publish_final_figures(trainer: Any, record: Record, films: bool = True) -> None:
    """Send what a measure shows once of a whole run: figures and tables, and films.

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
    timeline = record.timeline_of(fitted)
    if record.drawn != len(fitted):
        _publish_figures_of(trainer, record, timeline)
    _publish_figures(trainer, record, timeline, record.measure.draw_at_end)
    if films and _leaves_files(trainer):
        _publish_each(trainer, record, timeline, record.measure.films, _log_film)
    publish_tables(trainer, record, timeline)


def _publish_figures_of(trainer: Any, record: Record, timeline: Timeline) -> None:
    """Send the figures of a measurement, and take the time."""
    started = time.perf_counter()
    _publish_figures(trainer, record, timeline, record.measure.draw)
    if timeline.last.stage == "fit":
        record.drawn = len(record.fitted())
    record.figure_seconds = time.perf_counter() - started


def _publish_figures(
    trainer: Any,
    record: Record,
    timeline: Timeline,
    draw: Callable[[Timeline], Mapping[str, Drawing]],
) -> None:
    """Draw figures and send them to the loggers, if there are any or files may be left.

    Without a logger, and for loggers that have neither images nor a folder on this machine, they
    are written to the Trainer's ``default_root_dir``, except in runs that must leave no files
    (``fast_dev_run`` and ``barebones``).
    """
    if trainer.loggers or _leaves_files(trainer):
        _publish_each(trainer, record, timeline, draw, _log_figure)


def _publish_each(
    trainer: Any,
    record: Record,
    timeline: Timeline,
    make: Callable[[Timeline], Mapping[str, Any]],
    log: Callable[..., None],
) -> None:
    """Log figures or films, whose failures are worded alike: a cause they share is told once."""

    def log_all() -> None:
        for name, each in make(timeline).items():
            one = partial(log, trainer, record, name, each, timeline.last.step)
            safely(trainer, record.told_of_run, "draw a figure", one)

    safely(trainer, record.told_of_run, "draw figures", log_all)


def _leaves_files(trainer: Any) -> bool:
    return not (trainer.fast_dev_run or getattr(trainer, "barebones", False))


def _log_figure(trainer: Any, record: Record, name: str, drawing: Drawing, step: int) -> None:
    figure, tag = drawn(drawing), record.prefix + name
    _log_to_all(
        trainer,
        record,
        "figures",
        lambda logger: log_figure(logger, tag, figure, step),
        lambda folder, logger: save_figure(folder, tag, figure, step, logger),
    )
    forget(figure)


def _log_film(
    trainer: Any, record: Record, name: str, make: Callable[[Path], None], step: int
) -> None:
    tag = record.prefix + name
    with TemporaryDirectory() as folder:
        path = Path(folder, "film.gif")
        make(path)
        _log_to_all(
            trainer,
            record,
            "films",
            lambda logger: log_film(logger, tag, path, step),
            lambda folder, logger: save_film(folder, tag, path, logger),
        )


def _log_to_all(
    trainer: Any,
    record: Record,
    what: str,
    log: Callable[[Any], bool],
    save: Callable[[Any, Any], Path | None],
) -> None:
    """Log a figure or film to all loggers, and save it where there is no other place for it.

    Args:
        trainer: The Trainer.
        record: The record of the callback.
        what: What it is: figures or films.
        log: Logs to a logger, and says whether it or its folder has it now.
        save: Saves it in a folder, for a logger or None, and returns the file if there is one.
    """
    without = []
    for logger in trainer.loggers:
        doing = f"log a figure to {type(logger).__name__}"
        if safely(trainer, record.told_of_run, doing, partial(log, logger)) is False:
            without.append(logger)  # not one that failed, which is told
    groups = [[logger] for logger in without if takes_files(logger)]
    plain = [logger for logger in without if not takes_files(logger)]
    if plain or not trainer.loggers:
        groups.append(plain)  # one file for all of them
    for loggers in groups:
        save_for = partial(_save_for, trainer, record, what, save, loggers)
        safely(trainer, record.told_of_run, "write a figure", save_for)


def _save_for(
    trainer: Any,
    record: Record,
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
            say_once(trainer, record.told_of_run, f"place in {name}", text)
