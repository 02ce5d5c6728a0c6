"""The base of all callbacks: a schedule around a measure."""

from collections.abc import Callable, Sequence
from typing import Any

from lightning_nc.callbacks import moments
from lightning_nc.callbacks.epoch_metrics import announce_computing, stop_announcing
from lightning_nc.callbacks.final_figures import log_final_figures
from lightning_nc.callbacks.lightning_base import CallbackBase
from lightning_nc.callbacks.messages import safely
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import advise_at_setup, give_to_monitors
from lightning_nc.callbacks.record import OnError, Record
from lightning_nc.callbacks.schedule import Schedule, When
from lightning_nc.callbacks.shared_pass import measure_together
from lightning_nc.callbacks.strategies import require_processes
from lightning_nc.measures.measure import Measure
from lightning_nc.measures.measurement import Measurement
from lightning_nc.passes.probe import Probe


class MeasureCallback(CallbackBase):
    """Measures a probe at chosen epochs, and logs what it finds.

    Callbacks of equal probes that are due at the same moment share one pass over the network, if
    their measures have the same kind of pass.

    Args:
        measure: What is measured.
        probe: ``"train"``, ``"val"`` or ``"test"`` for the Trainer's data, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last.
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: At the end of training epochs, or of validation.
        figures: Whether to log figures.
        on_error: ``"warn"`` skips a measurement that fails, on all processes, and trains on;
            ``"raise"`` stops the run.

    Attributes:
        record: All that it keeps: history, failures, schedule.

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
        figures: bool = True,
        on_error: OnError = "warn",
    ) -> None:
        schedule = Schedule(every_n_epochs, epochs, when)
        self.record = Record(type(self).__name__, measure, probe, schedule, figures, on_error)

    @property
    def measure(self) -> Measure:
        """What is measured."""
        return self.record.measure

    @property
    def probe(self) -> Probe:
        """The samples that are measured."""
        return self.record.probe

    @property
    def family(self) -> str:
        """The first part of its logged keys."""
        return self.measure.family

    @property
    def schedule(self) -> Schedule:
        """When it measures."""
        return self.record.schedule

    @property
    def history(self) -> list[Measurement]:
        """All measurements so far, in order."""
        return self.record.history

    @property
    def failures(self) -> int:
        """How many measurements were skipped."""
        return self.record.failures

    def plot(self, name: str | None = None, measurement: int = -1) -> Any:
        """Draw a figure of the history, in a notebook or after a run.

        Args:
            name: The name of a figure; by default the first of those that are logged.
            measurement: Which of `history`; large arrays are kept for the last one alone.

        Returns:
            A matplotlib ``Figure``.

        Raises:
            ValueError: If nothing has been measured, or there is no such figure.
        """
        if not self.history:
            raise ValueError(
                f"{type(self).__name__} has measured nothing yet, and has no figures; fit first."
            )
        timeline = self.record.timeline(self.history[measurement])
        drawings = self.measure.draw(timeline) | self.measure.draw_at_end(timeline)
        if name is not None and name not in drawings:
            raise ValueError(f"There is no figure '{name}'; there are {', '.join(drawings)}.")
        try:
            return drawings[name if name is not None else next(iter(drawings))]()
        except KeyError as missing:
            raise ValueError(
                f"Measurement {measurement} has no {missing} any more: arrays of more than 1,000 "
                "numbers are kept for the last one alone."
            ) from None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse what cannot be measured, and two with the same keys; begin a run."""
        prefix = self.record.prefix
        same = [record for record in records_of(trainer) if record.prefix == prefix]
        if len(same) > 1:
            raise ValueError(
                f"{len(same)} callbacks would log the keys {prefix}...; give their probes "
                f'different names: Probe(source=..., name="other").'
            )
        require_processes(trainer, type(self).__name__)
        self.record.begin_run(stage, fresh=trainer.global_step == 0)
        if stage == "fit":
            self._attempt(trainer, "advise", lambda: advise_at_setup(trainer, self, self.record))
            self._attempt(trainer, "announce", lambda: announce_computing(trainer))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Undo what `setup` has done to the Trainer."""
        self._attempt(trainer, "stop announcing", lambda: stop_announcing(trainer))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure before training; on resuming, what was missed, and give monitors their values."""
        self._at(trainer, pl_module, moments.start_of_training)
        for measurement in self.record.fitted():
            give_to_monitors(trainer, measurement.values)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after a training epoch."""
        self._at(trainer, pl_module, moments.end_of_training_epoch)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after validation, within ``fit`` or by itself."""
        if not trainer.sanity_checking:
            self._at(trainer, pl_module, moments.end_of_validation)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after testing."""
        self._at(trainer, pl_module, moments.end_of_test)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after the last epoch, if training ended before it was known to be the last.

        Only now is it known which measurement is the last, so that figures of all can be logged.
        """
        self._at(trainer, pl_module, moments.end_of_training)
        log_final_figures(trainer, self.record)

    @property
    def state_key(self) -> str:
        """Unique among callbacks, since no two may log the same keys."""
        own = {} if type(self) is not MeasureCallback else {"family": self.measure.family}
        return self._generate_state_key(**own, probe=self.probe.key)

    def state_dict(self) -> dict[str, Any]:
        """History and failures, as primitives and tensors."""
        return self.record.to_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of a checkpoint."""
        self.record.load_state(state_dict)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Remember after which training the network is that `validate` or `test` is to measure."""
        self.record.loaded = moments.of_checkpoint(checkpoint)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes: plans hold on to data of this one."""
        self.record.plans.clear()
        return dict(vars(self))

    def _at(self, trainer: Any, pl_module: Any, moment_of: Callable[[Any], Moment]) -> None:
        """Let the first of the callbacks that are due on this probe measure for all of them."""
        moments_found: list[Moment] = []
        self._attempt(trainer, "tell when", lambda: moments_found.append(moment_of(trainer)))
        for moment in moments_found:
            moment = self.record.of_loaded_weights(moment)
            everything = records_of(trainer)
            due = [
                record
                for record in everything
                if record.probe == self.probe
                and record.measure.passes is self.measure.passes
                and record.due(moment)
            ]
            if due and due[0] is self.record:
                measure_together(trainer, pl_module, due, everything, moment)

    def _attempt(self, trainer: Any, what: str, do: Callable[[], Any]) -> None:
        """Do what may depend on names of Lightning that are no longer there; tell of it once."""
        safely(trainer, self.record.told, what, do)


def records_of(trainer: Any) -> list[Record]:
    """What the callbacks of a Trainer that are ours keep, in their order."""
    ours = [each for each in trainer.callbacks if isinstance(each, MeasureCallback)]
    return [callback.record for callback in ours]
