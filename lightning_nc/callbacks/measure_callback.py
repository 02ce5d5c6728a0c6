"""The base class of all callbacks: a measure with a schedule."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from lightning_nc.callbacks import moments
from lightning_nc.callbacks.epoch_metrics import announce_computing, stop_announcing
from lightning_nc.callbacks.failures import tell_how_often
from lightning_nc.callbacks.lightning_base import CallbackBase
from lightning_nc.callbacks.messages import safely, say_once
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import advise_at_setup, give_to_monitors
from lightning_nc.callbacks.on_all_processes import announce, leave_out_others, withdraw
from lightning_nc.callbacks.publishing_figures import publish_final_figures
from lightning_nc.callbacks.record import Figures, OnError, Record
from lightning_nc.callbacks.saved_state import VERSION, tell_of_state, why_not_read
from lightning_nc.callbacks.schedule import Schedule, When
from lightning_nc.callbacks.shared_pass import measure_together
from lightning_nc.callbacks.strategies import require_processes
from lightning_nc.figures.canvas import Target
from lightning_nc.figures.plotting import Plot, plotted
from lightning_nc.measures.given import require_measure
from lightning_nc.measures.history import History
from lightning_nc.measures.measure import Measure, drawing_of
from lightning_nc.measures.shown import Frame
from lightning_nc.passes.probe import Probe

T = TypeVar("T")


class MeasureCallback(CallbackBase):
    """Callback that measures a probe at chosen epochs and logs the results.

    Callbacks with equal probes that are due at the same moment share one pass over the probe, if
    their measures use the same kind of pass.

    Args:
        measure: The measure.
        probe: ``"train"``, ``"val"`` or ``"test"`` for the Trainer's data, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last one.
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: Whether to measure at the end of training epochs, ``"train_epoch_end"``, or of
            validation, ``"validation_end"``.
        figures: Which figures to log: by default those of the 1st, 2nd, 4th, 8th, ... measurement
            and of the last; ``"all"``, ``"last"`` or False.
        on_error: ``"warn"`` skips a measurement that fails, on all processes, and continues
            training: each cause is told once, and at the end how often. ``"raise"`` stops the run.

    Attributes:
        record: The state of the callback: history, failures, schedule.

    Raises:
        ValueError: If an argument is out of range.

    Example::

        trainer = Trainer(callbacks=[MeasureCallback(MyMeasure(), every_n_epochs=10)])
    """

    def __init__(
        self,
        measure: Measure,
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: Figures = True,
        on_error: OnError = "warn",
    ) -> None:
        super().__init__()
        schedule = Schedule(every_n_epochs, epochs, when)
        # of several that have no class of their own, the measure tells which one is meant
        name = type(measure if type(self) is MeasureCallback else self).__name__
        if "family" in vars(require_measure(measure)):
            name = f"{name} '{measure.family}'"
        self.record = Record(name, measure, probe, schedule, figures, on_error)

    @property
    def measure(self) -> Measure:
        """The measure."""
        return self.record.measure

    @property
    def probe(self) -> Probe:
        """The samples that are measured."""
        return self.record.probe

    @property
    def family(self) -> str:
        """The first part of the logged keys."""
        return self.measure.family

    @property
    def schedule(self) -> Schedule:
        """The schedule of the measurements."""
        return self.record.schedule

    @property
    def history(self) -> History:
        """All measurements of this run so far, in order, also after resuming it."""
        return self.record.history

    @property
    def histories(self) -> list[History]:
        """The history of each run with this callback, such as one per fold; the last is `history`.

        Those of earlier runs are not in checkpoints of this one.
        """
        return [History(rows) for rows in (*self.record.earlier, self.record.rows)]

    def history_frame(self, tidy: bool = False) -> Frame:
        """Return the history as a pandas ``DataFrame``.

        Args:
            tidy: Whether each value has a row. By default each measurement has a row, and each
                logged key a column.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        return self.history.to_frame(tidy)

    def __repr__(self) -> str:
        told = f"{self.record.title}, {self.schedule.in_words}"
        if not self.history:
            return f"<{told}: nothing measured yet in this process>"
        many = f"{len(self.history)} measurement{'s' * (len(self.history) != 1)}"
        return f"<{told}: {many}, the last after {self.history[-1].when}>"

    @property
    def failures(self) -> int:
        """The number of skipped measurements."""
        return self.record.failures

    def plot(self, name: str | None = None, measurement: int = -1, ax: Target = None) -> Plot:
        """Draw a figure of the history, which a notebook shows.

        Args:
            name: Name of the figure; by default the first one that is logged.
            measurement: Index into `history`; see `Measurement.arrays` for those that are kept.
            ax: Axes to draw on, as many as the figure has; by default those of a new figure.

        Returns:
            The matplotlib ``Figure``, and its ``Axes`` or an array of them.

        Raises:
            ValueError: If nothing has been measured, there is no such figure, it has another
                number of axes, or its arrays are no longer kept.
        """
        if not self.history:
            raise ValueError(
                f"{self.record.name} has measured nothing yet in this process, so there is no "
                "figure; fit first. After ddp_notebook or ddp_spawn, the loggers have the figures."
            )
        timeline = self.record.timeline(measurement)
        drawings = self.measure.draw(timeline) | self.measure.draw_at_end(timeline)
        try:
            return plotted(drawing_of(drawings, name, self.measure.figures), ax)
        except KeyError as missing:
            if timeline.last.arrays.keys() >= self.history[-1].arrays.keys():
                raise
            raise ValueError(
                f"Measurement {measurement} no longer has {missing}: arrays of more than 1,000 "
                "numbers are kept only for the last one, and others for at most 1,000 "
                "measurements. Plot measurement=-1."
            ) from None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse what cannot be measured and callbacks with the same keys, and begin a run."""
        _require_own_keys(trainer, self.record)
        require_processes(trainer, self.record.name)
        self.record.begin_run(stage, trainer.global_step == 0, trainer, pl_module)
        self.record.told_of_run = records_of(trainer)[0].told
        if stage != "predict":
            announce(trainer, self.record)
        if stage == "fit":
            self._attempt(trainer, "check monitors", lambda: advise_at_setup(trainer, self))
            self._attempt(trainer, "announce metrics", lambda: announce_computing(trainer))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Undo what `setup` did."""
        withdraw(trainer, self.record)
        self._attempt(trainer, "stop announcing metrics", lambda: stop_announcing(trainer))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure before training or, on resuming, what is still due; restore monitored values."""
        for callback in _ours(trainer):  # this one may measure for others, too
            callback.begin_training(trainer)
        self._at(trainer, pl_module, moments.start_of_training)
        give_to_monitors(trainer, self.record.fitted().last_finite())
        if earlier := self.record.earlier:
            text = "Each callback keeps the histories of runs apart: history is that of this run, "
            text += f"and histories has those of the {len(earlier)} before it, too."
            say_once(trainer, self.record.told_of_run, "histories", text)

    def begin_training(self, trainer: Any) -> None:
        """Take note of what is known before training; called before anything is measured."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after a training epoch."""
        self._at(trainer, pl_module, moments.end_of_training_epoch)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after validation, within ``fit`` or ``validate``."""
        if not trainer.sanity_checking:
            self._at(trainer, pl_module, moments.end_of_validation)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after testing."""
        self._at(trainer, pl_module, moments.end_of_test)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after the last epoch, if training ended early, and sum up the run.

        Only now is it known which measurement is the last one.
        """
        self._at(trainer, pl_module, moments.end_of_training)
        publish_final_figures(trainer, self.record)
        records = records_of(trainer)
        if self.record is records[-1]:
            tell_how_often(trainer, records)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Log the figures of the last measurement of a run that ends by an exception.

        Whatever fails here, the exception is raised. A process that is told to end may have little
        time, so that films are left out. Lightning calls no `teardown` after it.
        """
        withdraw(trainer, self.record)
        with suppress(Exception):  # where warnings are errors, those on a figure
            log = partial(publish_final_figures, trainer, self.record, films=False)
            self._attempt(trainer, "log the last figures", log)

    @property
    def state_key(self) -> str:
        """The key of the state; unique, since no two callbacks may log the same keys.

        Lightning refuses two callbacks of one class with the same key: give their probes names.
        """
        own = {} if type(self) is not MeasureCallback else {"family": self.measure.family}
        return self._generate_state_key(**own, probe=self.probe.key)

    def state_dict(self) -> dict[str, Any]:
        """Return history and failures as primitives and tensors."""
        return {"version": VERSION, **self.record.to_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore history and failures from a checkpoint; what is damaged is left out, and told."""
        why_not = why_not_read(state_dict)
        lost = self.load_parts({} if why_not else state_dict)
        tell_of_state(self.record.title, why_not, lost)

    def load_parts(self, state: dict[str, Any]) -> list[str]:
        """Restore the parts of a state, and return what is damaged and left out."""
        return self.record.load_state(state)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note how far the loaded weights were trained, for `validate` and `test`."""
        self._note_loaded(trainer, lambda: checkpoint)

    def _note_loaded(self, trainer: Any, read: Callable[[], Any]) -> None:
        self.record.shown = True
        what = "tell how far the weights in the checkpoint were trained"
        self.record.loaded = self._attempt(trainer, what, lambda: moments.of_checkpoint(read()))

    def _at(self, trainer: Any, pl_module: Any, moment_of: Callable[[Any], Moment]) -> None:
        """Measure for all callbacks that are due on this probe, if this one is their first."""
        moment = self._attempt(trainer, "determine when to measure", lambda: moment_of(trainer))
        if moment is None:
            return
        if moment.stage != "fit" and trainer.ckpt_path and not self.record.shown:
            # before 2.5.1, Lightning shows a checkpoint to callbacks only when it trains
            self._note_loaded(trainer, partial(moments.read_checkpoint, trainer.ckpt_path))
        moment = self.record.of_loaded_weights(moment)
        everything = records_of(trainer)
        if any(record.due(moment) for record in everything):
            leave_out_others(trainer, everything)
        due = [
            record
            for record in everything
            if record.probe == self.probe
            and record.measure.passes is self.measure.passes
            and record.due(moment)
        ]
        if due and due[0] is self.record:
            measure_together(trainer, pl_module, due, everything, moment)

    def _attempt(self, trainer: Any, what: str, do: Callable[[], T]) -> T | None:
        """Do something that may need private names of Lightning; report a failure once."""
        return safely(trainer, self.record.told_of_run, what, do)


def records_of(trainer: Any) -> list[Record]:
    """Return the records of our callbacks in a Trainer, in their order."""
    return [callback.record for callback in _ours(trainer)]


def _ours(trainer: Any) -> list[MeasureCallback]:
    return [each for each in trainer.callbacks if isinstance(each, MeasureCallback)]


def _require_own_keys(trainer: Any, record: Record) -> None:
    """Refuse a Trainer of which another callback would log the keys of a record."""
    same = [each for each in records_of(trainer) if each.prefix == record.prefix]
    if len(same) > 1:
        source = record.probe.source
        shown = f'"{source}"' if isinstance(source, str) else "..."
        raise ValueError(
            f"{len(same)} callbacks would log the keys {record.prefix}...; give their probes "
            f'different names: probe=Probe({shown}, name="other").'
        )
