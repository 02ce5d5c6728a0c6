"""The state of a callback: what to measure, when, and everything measured so far."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_nc.arguments import require_one_of, require_yes_or_no
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.schedule import Schedule
from lightning_nc.measures.measure import Evaluation, Measure
from lightning_nc.measures.measurement import Measurement, keyed, on_its_own
from lightning_nc.measures.timeline import Timeline
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.probe import Probe, probe_of
from lightning_nc.passes.request import Answer

OnError = Literal["warn", "raise"]


@dataclass
class Cause:
    """Why measurements were skipped.

    Attributes:
        text: What was told of it at first.
        times: How many measurements were skipped for it.
    """

    text: str
    times: int = 0


class Record:
    """The settings and the history of one callback.

    Args:
        name: The name of the callback, for messages.
        measure: The measure.
        probe: The probe, or ``"train"``, ``"val"`` or ``"test"`` for the Trainer's data.
        schedule: When to measure.
        figures: Whether figures are logged.
        on_error: ``"warn"`` skips a measurement that fails; ``"raise"`` stops the run.

    Attributes:
        history: All measurements, in order.
        failures: The number of skipped measurements.
        attempts: The number of measurements of this run, including the skipped ones.
        causes: Why measurements of this run were skipped, by what identifies the cause.
        skipped: The epochs completed at the skipped measurements of this run.
        missed: The number of measurements missed by a process since the last one all came to.
        runs: How often a Trainer was set up with this record.
        stage: The stage of the run; None before the first run.
        loaded: Epochs completed and step of the checkpoint whose weights are measured; None if
            the weights are those of the run.
        plans: Plans of earlier measurements, by the key prefixes of the callbacks that share them.
        told: Topics of messages that have been reported.
        asked_for: Whether the user asked for this family in particular. If not, that it does not
            apply is no failure: it is said once, in Lightning's log.
        left_out: Whether nothing is measured in this run, because the family does not apply.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        name: str,
        measure: Measure,
        probe: str | Probe,
        schedule: Schedule,
        figures: bool,
        on_error: OnError,
    ) -> None:
        require_one_of("on_error", on_error, ("warn", "raise"))
        if not isinstance(measure, Measure):
            raise ValueError(f"measure must be a Measure, got {measure!r}: give an object of one.")
        self.name, self.measure, self.schedule = name, measure, schedule
        self.probe = probe_of(probe)
        self.figures, self.on_error = require_yes_or_no("figures", figures), on_error
        self.history: list[Measurement] = []
        self.failures = self.missed = self.runs = self.attempts = 0
        self.causes: dict[str, Cause] = {}
        self.skipped: set[float] = set()
        self.stage: str | None = None
        self.loaded: tuple[float, int] | None = None
        self.plans: dict[tuple[str, ...], Plan] = {}
        self.told: set[str] = set()
        self.asked_for, self.left_out = True, False

    @property
    def prefix(self) -> str:
        """The prefix of the logged keys: ``family/probe/``."""
        return f"{self.measure.family}/{self.probe.key}/"

    def begin_run(self, stage: str, fresh: bool) -> None:
        """Forget what belongs to the previous run; a fresh run also forgets the history of ``fit``.

        Args:
            stage: ``"fit"``, ``"validate"`` or ``"test"``.
            fresh: Whether training starts from the beginning.
        """
        self.stage, self.loaded, self.left_out = stage, None, False
        self.runs, self.missed, self.attempts = self.runs + 1, 0, 0
        self.causes.clear()
        self.plans.clear()  # the network or the data may have changed
        self.skipped.clear()
        if stage == "fit" and fresh:
            self.history = [m for m in self.history if m.stage != "fit"]
            self.failures = 0
            self.told.clear()

    def due(self, moment: Moment) -> bool:
        """Whether to measure at this moment."""
        if self.left_out:
            return False
        own_data = not isinstance(self.probe.source, str)
        if moment.stage != "fit":
            of_stage = {"validate": "val", "test": "test"}.get(moment.stage)
            return own_data or self.probe.source == of_stage
        if self.probe.source == "test" or self.schedule.when not in moment.whens:
            return False
        measured = {m.epochs_completed for m in self.history if m.stage == "fit"}
        if moment.epochs_completed in self.skipped | measured:
            return False
        return self.schedule.due(math.ceil(moment.epochs_completed), moment.last_epoch)

    def of_loaded_weights(self, moment: Moment) -> Moment:
        """Return the moment at which the weights were saved, if a checkpoint was loaded."""
        if moment.stage == "fit" or self.loaded is None:
            return moment
        completed, step = self.loaded
        return moment._replace(epochs_completed=completed, step=step)

    def add(
        self, answer: Answer, evaluation: Evaluation, moment: Moment, seconds: float
    ) -> Measurement:
        """Add a measurement to the history; large arrays are kept only for this one.

        Args:
            answer: What the pass returned.
            evaluation: What the measure computed from it.
            moment: When it was measured.
            seconds: How long it took.

        Returns:
            The measurement.
        """
        family, probe = self.measure.family, self.probe.key
        book = {
            "epochs_completed": float(moment.epochs_completed),
            "seconds": seconds,
            "num_classes": float((answer.counts > 0).sum()),
            "num_samples": float(answer.counts.sum()),
            "failures": float(self.failures),
        }
        measurement = Measurement(
            epochs_completed=moment.epochs_completed,
            step=moment.step,
            values=keyed(family, probe, {**evaluation.values, **book}, evaluation.layers),
            arrays={name: on_its_own(array) for name, array in evaluation.arrays.items()},
            counts=on_its_own(answer.counts),
            seconds=seconds,
            stage=moment.stage,
            pooling=dict(answer.pooling),
            classes=answer.class_names,
        )
        self.history = [past.without_large_arrays() for past in self.history]
        self.history.append(measurement)
        return measurement

    def timeline(self, measurement: Measurement) -> Timeline:
        """Return the measurements of the same stage up to this one."""
        known = [m for m in self.history if m.stage == measurement.stage]
        place = next((i for i, m in enumerate(known) if m is measurement), len(known))
        of_training = self.probe.source == "train" and measurement.stage == "fit"
        past = [*known[:place], measurement]
        return Timeline(self.measure.family, self.probe.key, past, of_training)

    def fitted(self) -> Sequence[Measurement]:
        """Return the measurements of ``fit``."""
        return [m for m in self.history if m.stage == "fit"]

    def to_state(self) -> dict[str, Any]:
        """Return history and failures as primitives and tensors."""
        history = [measurement.to_state() for measurement in self.history]
        return {"version": 1, "history": history, "failures": self.failures}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore history and failures from a checkpoint."""
        if self.stage != "fit" and self.history:
            return  # testing an early checkpoint must not discard the later history
        try:
            history = [Measurement.from_state(each) for each in state.get("history", [])]
            self.failures = int(state.get("failures", 0))
        except (TypeError, ValueError, AttributeError) as error:
            warnings.warn(
                f"{self.name} cannot read its state in the checkpoint and starts with an empty "
                f"history: {error!r}",
                RuntimeWarning,
                stacklevel=2,
            )
            history = []
        self.history = history
