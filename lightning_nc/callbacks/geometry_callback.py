"""What all callbacks have in common: when they are due, with whom they share, what they keep."""

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from torch import Tensor

from lightning_nc.callbacks import moments
from lightning_nc.callbacks.closing import close
from lightning_nc.callbacks.epoch_metrics import epoch_metrics
from lightning_nc.callbacks.geometry_pass import GeometryPass
from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.measuring_pass import MeasuringPass
from lightning_nc.callbacks.meeting import meeting_place
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import advise_at_setup, monitor
from lightning_nc.callbacks.namespaces import CallbackBase
from lightning_nc.callbacks.plan import Plan
from lightning_nc.callbacks.processes import require_processes
from lightning_nc.callbacks.request import Answer, Request
from lightning_nc.callbacks.schedule import Schedule, When
from lightning_nc.callbacks.shared_pass import measure_together
from lightning_nc.probe.data import Probe

Drawing = Callable[[], Any]  # draws a matplotlib figure, of arrays that may be gone


class Evaluation(NamedTuple):
    """What a callback makes of the geometry.

    Attributes:
        values: Scalars under their logged keys.
        arrays: Tensors for figures.
        notes: Sentences that say why values are undefined, by topic; each topic is told once.
        alerts: Sentences on what has come to pass, by title; told once, also to W&B.
    """

    values: dict[str, float]
    arrays: dict[str, Tensor]
    notes: dict[str, str]
    alerts: Mapping[str, str] = MappingProxyType({})


class GeometryCallback(CallbackBase):
    """A callback that measures the geometry of a probe; the base of those in this package.

    A measure of your own is a subclass with a ``family`` (the first part of its logged keys) and
    the three methods `request`, `evaluate` and `draw`. Those of equal probes that are due together
    and have the same ``passes`` share one.

    Args:
        probe: ``"train"``, ``"val"`` or ``"test"`` for the Trainer's data, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last.
        epochs: Epochs completed at which to measure instead; 0 is before training.
        when: At the end of training epochs, or of validation.
        figures: Whether to log figures.
        on_error: ``"warn"`` skips a measurement that fails, on all processes, and trains on;
            ``"raise"`` stops the run.
    """

    family: str
    passes: type[MeasuringPass] = GeometryPass

    def __init__(
        self,
        probe: str | Probe,
        every_n_epochs: int,
        epochs: Sequence[int] | None,
        when: When,
        figures: bool,
        on_error: Literal["warn", "raise"],
    ) -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f'on_error must be "warn" or "raise", got {on_error!r}.')
        self.probe = Probe(source=probe) if isinstance(probe, str) else probe
        self.schedule = Schedule(every_n_epochs, epochs, when)
        self.figures = figures
        self.on_error = on_error
        self.history: list[Measurement] = []
        self.failures = 0
        self.missed = 0  # meetings of processes, since the last that all came to
        self.runs = 0  # of the Trainer, so far
        self.skipped: set[float] = set()
        self.stage: str | None = None
        self.loaded: tuple[float, int] | None = None  # of which checkpoint the weights are
        self.plans: dict[tuple[str, ...], Plan] = {}
        self.told: set[str] = set()

    @abstractmethod
    def request(self) -> Request:
        """What is to be measured."""

    @abstractmethod
    def evaluate(self, answer: Answer) -> Evaluation:
        """Turn geometry into numbers."""

    @abstractmethod
    def draw(self, measurement: Measurement) -> dict[str, Drawing]:
        """Draw figures of a measurement: by tag, what draws it when it is called."""

    def events(self, measurement: Measurement) -> dict[str, str]:
        """What has come to pass with a measurement, by title; logged as messages."""
        return {}

    def plot(self, name: str | None = None, measurement: int = -1) -> Any:
        """Draw a figure of the history, in a notebook or after a run.

        Args:
            name: Which one, by the end of its tag; by default the first of those that are logged.
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
        drawings = self.draw(self.history[measurement])
        drawings |= self.draw_at_end(self.history[measurement])
        by_name = {tag.rpartition("/")[2]: drawing for tag, drawing in drawings.items()}
        if name is not None and name not in by_name:
            raise ValueError(f"There is no figure '{name}'; there are {', '.join(by_name)}.")
        try:
            return by_name[name if name is not None else next(iter(by_name))]()
        except KeyError as missing:
            raise ValueError(
                f"Measurement {measurement} has no {missing} any more: arrays of more than 1,000 "
                "numbers are kept for the last one alone."
            ) from None

    def title(self, what: str, measurement: Measurement | None = None) -> str:
        """What stands above a figure: what it shows, of which probe and, of one measurement, when.

        Args:
            what: What it shows.
            measurement: Which one; None for a figure over epochs.
        """
        if measurement is None:
            return f"{what}, {self.probe.key}"
        return f"{what}, {self.probe.key}, {measurement.when}"

    def epochs(self, measurement: Measurement) -> list[float]:
        """Epochs completed at all measurements of the same stage."""
        return [m.epochs_completed for m in self._like(measurement)]

    def over_epochs(self, measurement: Measurement, key: str) -> list[float]:
        """A value at all measurements of the same stage; NaN where it was not measured."""
        return [m.values.get(key, math.nan) for m in self._like(measurement)]

    def _like(self, measurement: Measurement) -> list[Measurement]:
        """Of the same stage, up to it."""
        known = [m for m in self.history if m.stage == measurement.stage]
        place = next((i for i, m in enumerate(known) if m is measurement), len(known))
        return [*known[:place], measurement]

    def draw_at_end(self, measurement: Measurement) -> dict[str, Drawing]:
        """The same of figures that are logged once, with the last measurement of ``fit``."""
        return {}

    def films(self, measurement: Measurement) -> dict[str, Callable[[Path], None]]:
        """Make films up to a measurement: by tag, what writes a GIF; logged like `draw_at_end`."""
        return {}

    def prefix(self, family: str | None = None) -> str:
        """The beginning of logged keys: ``family/probe/``."""
        return f"{family or self.family}/{self.probe.key}/"

    def due(self, moment: Moment) -> bool:
        """Whether this callback measures at this moment."""
        own_data = not isinstance(self.probe.source, str)
        if moment.stage != "fit":
            of_stage = {"validate": "val", "test": "test"}.get(moment.stage)
            return own_data or self.probe.source == of_stage
        if self.probe.source == "test" or self.schedule.when not in moment.whens:
            return False
        if moment.epochs_completed in self.skipped or any(
            m.stage == "fit" and m.epochs_completed == moment.epochs_completed for m in self.history
        ):
            return False
        return self.schedule.due(math.ceil(moment.epochs_completed), moment.last_epoch)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse what cannot be measured, and two with the same keys; start a fresh run afresh."""
        same = [
            callback
            for callback in trainer.callbacks
            if isinstance(callback, GeometryCallback) and callback.prefix() == self.prefix()
        ]
        if len(same) > 1:
            raise ValueError(
                f"{len(same)} callbacks would log the keys {self.prefix()}...; give their probes "
                f'different names: Probe(source=..., name="other").'
            )
        require_processes(trainer, type(self).__name__)
        self.stage, self.loaded = stage, None
        self.runs, self.missed = self.runs + 1, 0
        self.plans.clear()  # the network or the data may be others than before
        self.skipped.clear()
        if stage == "fit" and trainer.global_step == 0:
            self.history = [m for m in self.history if m.stage != "fit"]
            self.failures = 0
            self.told.clear()
        if stage == "fit":
            advise_at_setup(trainer, self)
            place = meeting_place()
            metrics = place and epoch_metrics(trainer, place)
            if metrics:
                metrics.announce()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Undo what `setup` has done to the Trainer."""
        place = meeting_place()
        metrics = place and epoch_metrics(trainer, place)
        if metrics:
            metrics.keep_quiet()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure before training; on resuming, what was missed, and give monitors their values."""
        self._at(trainer, pl_module, moments.start_of_training(trainer))
        for measurement in self.history:
            if measurement.stage == "fit":
                monitor(trainer, measurement.values)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after a training epoch."""
        self._at(trainer, pl_module, moments.end_of_training_epoch(trainer))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after validation, within ``fit`` or by itself."""
        if not trainer.sanity_checking:
            self._at(trainer, pl_module, moments.end_of_validation(trainer))

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after testing."""
        self._at(trainer, pl_module, moments.end_of_test(trainer))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after the last epoch, if training ended before it was known to be the last.

        Only now is it known which measurement is the last, and figures over all can be logged.
        """
        self._at(trainer, pl_module, moments.end_of_training(trainer))
        close(trainer, self)

    @property
    def state_key(self) -> str:
        """Unique among callbacks, since no two may log the same keys."""
        return self._generate_state_key(probe=self.probe.key)

    def state_dict(self) -> dict[str, Any]:
        """History and failures, as primitives and tensors."""
        history = [measurement.to_state() for measurement in self.history]
        return {"version": 1, "history": history, "failures": self.failures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of a checkpoint."""
        if self.stage != "fit" and self.history:
            return  # testing an early checkpoint does not undo the training after it
        try:
            history = [Measurement.from_state(state) for state in state_dict.get("history", [])]
            self.failures = int(state_dict.get("failures", 0))
        except (TypeError, ValueError, AttributeError) as error:
            warnings.warn(
                f"{type(self).__name__} cannot read its state in the checkpoint, and starts with "
                f"an empty history: {error!r}",
                RuntimeWarning,
                stacklevel=2,
            )
            history = []
        self.history = history

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Remember after which training the network is that `validate` or `test` is to measure."""
        self.loaded = moments.of_checkpoint(checkpoint)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes: plans hold on to data of this one."""
        return vars(self) | {"plans": {}}

    def _at(self, trainer: Any, pl_module: Any, moment: Moment) -> None:
        """Let the first of the callbacks that are due on this probe measure for all of them."""
        if moment.stage != "fit" and self.loaded is not None:
            completed, step = self.loaded
            moment = moment._replace(epochs_completed=completed, step=step)
        due = [
            callback
            for callback in trainer.callbacks
            if isinstance(callback, GeometryCallback)
            and callback.probe == self.probe
            and callback.passes is self.passes
            and callback.due(moment)
        ]
        if due and due[0] is self:
            measure_together(trainer, pl_module, due, moment)
