"""Where values go: to monitors on every process, to loggers and figures on the first."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import monitor
from lightning_nc.callbacks.processes import tell
from lightning_nc.callbacks.tables import tables_of
from lightning_nc.loggers import (
    Lines,
    Table,
    arrange_panels,
    log_figure,
    log_film,
    log_table,
    save_figure,
    save_film,
    send_alert,
    takes_tables,
)

if TYPE_CHECKING:
    from lightning_nc.callbacks.geometry_callback import GeometryCallback

Attempt = Callable[[str, Callable[[], Any]], None]  # does what is named, see `safely`


def publish(
    trainer: Any,
    callbacks: Sequence["GeometryCallback"],
    values: Mapping[str, float],
    moment: Moment,
) -> None:
    """Give values to the Trainer's monitors and, in one row, to its loggers; no communication.

    Args:
        trainer: The Trainer.
        callbacks: Whose values these are; what fails is told once by the first of them.
        values: Scalars under their keys.
        moment: When they were measured.
    """
    monitor(trainer, values)
    if not trainer.is_global_zero:
        return
    attempt, probes = partial(safely, trainer, callbacks[0].told), _measured(trainer)
    for logger in trainer.loggers:
        name = type(logger).__name__
        arrange = partial(arrange_panels, logger, probes, values)
        attempt(f"arrange panels of {name}", arrange)
        row = {**values, "epoch": moment.epoch}
        attempt(f"log to {name}", partial(logger.log_metrics, row, step=moment.step))


def publish_more(trainer: Any, callback: "GeometryCallback", measurement: Measurement) -> None:
    """Give the figures of a measurement to loggers, and tables to those that take them.

    Without a logger figures become files in the Trainer's ``default_root_dir``, but for runs that
    are to leave nothing. Each is drawn and logged by itself, whatever becomes of the others.
    """
    if not (callback.figures and trainer.is_global_zero):
        return
    step, told = measurement.step, callback.told
    publish_figures(trainer, told, partial(callback.draw, measurement), step)
    if any(map(takes_tables, trainer.loggers)):
        attempt = partial(safely, trainer, told)
        tables = partial(tables_of, callback, measurement)
        attempt("make tables", lambda: _log_tables(trainer, attempt, tables(), step))


def publish_figures(
    trainer: Any,
    told: set[str],
    figures: Callable[[], Mapping[str, Callable[[], Any]]],
    step: int,
) -> None:
    """Draw figures and give them to the loggers; on the first process, see `publish`."""
    attempt = partial(safely, trainer, told)
    if trainer.loggers or _leaves_files(trainer):
        attempt("draw figures", lambda: _log_figures(trainer, attempt, figures(), step))


def publish_films(
    trainer: Any,
    told: set[str],
    films: Callable[[], Mapping[str, Callable[[Path], None]]],
    step: int,
) -> None:
    """Make films and give them to the loggers, but for runs that are to leave nothing.

    What fails is told in the words of figures, so that one cause is told once.

    Args:
        trainer: The Trainer.
        told: What has been told before.
        films: Gives what writes GIFs, by tag; called on the first process.
        step: Of the loggers.
    """
    attempt = partial(safely, trainer, told)
    if _leaves_files(trainer):
        attempt("draw figures", lambda: _log_films(trainer, attempt, films(), step))


def alert(trainer: Any, told: set[str], title: str, text: str) -> None:
    """Send a message by those loggers that can; on the first process."""
    for logger in trainer.loggers:
        what = f"send an alert by {type(logger).__name__}"
        safely(trainer, told, what, partial(send_alert, logger, title, text))


def _measured(trainer: Any) -> list[tuple[str, str]]:
    """Families of keys and probes, of all callbacks of the Trainer that measure."""
    from lightning_nc.callbacks.geometry_callback import GeometryCallback  # which imports this

    ours = [each for each in trainer.callbacks if isinstance(each, GeometryCallback)]
    return [(callback.family, callback.probe.key) for callback in ours]


def _leaves_files(trainer: Any) -> bool:
    return not (trainer.fast_dev_run or getattr(trainer, "barebones", False))


def _log_figures(
    trainer: Any, attempt: Attempt, figures: Mapping[str, Callable[[], Any]], step: int
) -> None:
    for tag, drawing in figures.items():
        attempt("draw a figure", partial(_log_figure, trainer, attempt, tag, drawing, step))


def _log_figure(
    trainer: Any, attempt: Attempt, tag: str, drawing: Callable[[], Any], step: int
) -> None:
    figure = drawing()
    if not trainer.loggers:
        # not `trainer.log_dir`, which is the same without loggers, and communicates
        folder = trainer.default_root_dir
        attempt("write a figure", partial(save_figure, folder, tag, figure, step))
    for logger in trainer.loggers:
        what = f"log a figure to {type(logger).__name__}"
        attempt(what, partial(log_figure, logger, tag, figure, step))


def _log_films(
    trainer: Any, attempt: Attempt, films: Mapping[str, Callable[[Path], None]], step: int
) -> None:
    for tag, make in films.items():
        attempt("draw a figure", partial(_log_film, trainer, attempt, tag, make, step))


def _log_film(
    trainer: Any, attempt: Attempt, tag: str, make: Callable[[Path], None], step: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "film.gif")
        make(path)
        if not trainer.loggers:
            attempt("write a figure", partial(save_film, trainer.default_root_dir, tag, path))
        for logger in trainer.loggers:
            what = f"log a figure to {type(logger).__name__}"
            attempt(what, partial(log_film, logger, tag, path, step))


def _log_tables(
    trainer: Any, attempt: Attempt, tables: Mapping[str, Table | Lines], step: int
) -> None:
    for logger in trainer.loggers:
        for tag, table in tables.items():
            what = f"log a table to {type(logger).__name__}"
            attempt(what, partial(log_table, logger, tag, table, step))


def safely(trainer: Any, told: set[str], what: str, do: Callable[[], Any]) -> None:
    """A logger that fails must not cost the run, nor can it hang: nothing is communicated here.

    Args:
        trainer: The Trainer.
        told: What has been told before. A failure is told once, whatever file it is about: most
            come back with every measurement.
        what: Is done; a verb and its object.
        do: Does it.
    """
    try:
        do()
    except Exception as error:
        reason = f"Could not {what}: {_shown(error)}"
        if reason not in told:
            told.add(reason)
            tell(trainer, reason + _place(error))


def _shown(error: Exception) -> str:
    try:
        return repr(error)
    except Exception:
        return f"{type(error).__name__}, an error that cannot be shown"


def _place(error: Exception) -> str:
    """The file or folder that an error is about, which `repr` leaves out."""
    return f" at {error.filename!r}" if isinstance(error, OSError) and error.filename else ""
