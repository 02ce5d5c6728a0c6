"""The state of a callback: what to measure, when, and everything measured so far."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal
from weakref import ReferenceType, ref

from lightning_nc.arguments import require_figures, require_one_of
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.schedule import Schedule
from lightning_nc.measures.history import History, of_stage
from lightning_nc.measures.measure import Measure
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.rows import Rows
from lightning_nc.measures.saved_history import is_count, rows_of, state_of
from lightning_nc.measures.timeline import Timeline
from lightning_nc.measures.together import Found
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.probe import Probe, probe_of

OnError = Literal["warn", "raise"]
Figures = bool | Literal["all", "last"]


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
        name: The name of the callback or, where its class tells nothing, of its measure.
        measure: The measure.
        probe: The probe, or ``"train"``, ``"val"`` or ``"test"`` for the Trainer's data.
        schedule: When to measure.
        figures: Which figures are logged: True for those of the 1st, 2nd, 4th, 8th, ... measurement
            and of the last; ``"all"``, ``"last"`` or False.
        on_error: ``"warn"`` skips a measurement that fails; ``"raise"`` stops the run.

    Attributes:
        rows: The measurements of this run, and those of `validate` and `test` before and after.
        earlier: The same of each earlier run.
        measured: The keys of the moments at which this run's ``fit`` was measured.
        failures: The number of skipped measurements.
        attempts: The number of measurements of this run, including the skipped ones.
        causes: Why measurements of this run were skipped, by what identifies the cause.
        skipped: The keys of the moments of skipped measurements of this run.
        missed: The number of measurements missed by a process since the last one all came to.
        drawn: The number of measurements of ``fit`` when figures were last logged.
        concluded: The number of measurements of ``fit`` that are not of this run, or whose final
            figures were logged.
        figure_seconds: How long figures of the last measurement took on this process.
        runs: How often a Trainer was set up with this record.
        stage: The stage of the run; None before the first run.
        trained: What the last ``fit`` trained, and by which Trainer; None before it, and in copies.
        fresh: Whether this run is a ``fit`` that began with an empty history.
        loaded: Epochs completed and step of the checkpoint whose weights are measured; None if
            the weights are those of the run.
        shown: Whether this checkpoint was looked at.
        plans: Plans of earlier measurements, by the key prefixes of the callbacks that share them.
        told: Topics of messages that have been reported.
        told_of_run: The same of messages that concern the run and its loggers, whichever callback
            they come from; the callbacks of a Trainer share it.
        asked_for: Whether the user asked for this family in particular. If not, that it does not
            apply is no failure: it is said once, in Lightning's log.
        left_out: Whether nothing is measured in this run, because the family does not apply or
            some processes do not have this callback.
        announced: Whether other processes can see that this one has the callback.
        compared: Whether it was compared with the callbacks of other processes in this run.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        name: str,
        measure: Measure,
        probe: str | Probe,
        schedule: Schedule,
        figures: Figures,
        on_error: OnError,
    ) -> None:
        require_one_of("on_error", on_error, ("warn", "raise"))
        self.name, self.measure, self.schedule = name, measure, schedule
        self.probe = probe_of(probe)
        self.figures, self.on_error = require_figures(figures), on_error
        self.rows, self.earlier = Rows(), list[Rows]()
        self.measured: set[Hashable] = set()
        self.failures = self.missed = self.runs = self.attempts = 0
        self.drawn: int | None = None
        self.concluded = 0
        self.figure_seconds = 0.0
        self.causes: dict[str, Cause] = {}
        self.skipped: set[Hashable] = set()
        self.stage: str | None = None
        self.trained: tuple[ReferenceType[Any], ...] | None = None
        self.fresh = False
        self.loaded: tuple[float, int] | None = None
        self.shown = False
        self.plans: dict[tuple[str, ...], Plan] = {}
        self.told = self.told_of_run = set[str]()
        self.asked_for, self.left_out = True, False
        self.announced = self.compared = False

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, without what refers to objects of this process."""
        return vars(self) | {"plans": {}, "trained": None}

    @property
    def prefix(self) -> str:
        """The prefix of the logged keys: ``family/probe/``."""
        return f"{self.measure.family}/{self.probe.key}/"

    @property
    def title(self) -> str:
        """The callback and its probe, as messages call them: ``NeuralCollapse on 'train'``."""
        return f"{self.name} on '{self.probe.key}'"

    @property
    def history(self) -> History:
        """All measurements of this run, in order."""
        return History(self.rows)

    def begin_run(self, stage: str, fresh: bool, *trained: Any) -> None:
        """Forget what belongs to the previous run; a fresh run of ``fit`` has a history of its own.

        A Trainer that goes on has its counters of before. If it goes on with another network, or
        another Trainer has trained since, that is a fresh run, too.

        Args:
            stage: ``"fit"``, ``"validate"`` or ``"test"``.
            fresh: Whether training starts from the beginning.
            *trained: What is trained, and by which Trainer.
        """
        self.stage, self.loaded, self.shown, self.left_out = stage, None, False, False
        self.runs, self.missed, self.attempts = self.runs + 1, 0, 0
        self.causes.clear()
        self.plans.clear()  # the network or the data may have changed
        self.skipped.clear()
        self.drawn, self.figure_seconds = None, 0.0
        objects = tuple(map(ref, trained))
        self.fresh = stage == "fit" and (fresh or self.trained not in (None, objects))
        if stage == "fit":
            self.trained = objects
        if self.fresh:
            if self.measured:
                self.earlier.append(self.rows)
                self._go_on_with(Rows())
            self.failures = 0
            self.told.clear()
        self.concluded = len(self.fitted())

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
        if moment.key in self.skipped or moment.key in self.measured:
            return False
        return self.schedule.due(moment.epochs_begun, moment.last_epoch)

    def draws_now(self, measurement: Measurement) -> bool:
        """Whether to log the figures of the last measurement at once.

        Those of the last one of ``fit`` are logged when training is over, if not before.
        """
        if measurement.stage != "fit" or self.figures == "all":
            return bool(self.figures)
        number = len(self.fitted())
        return self.figures is True and number & (number - 1) == 0  # a power of two

    def of_loaded_weights(self, moment: Moment) -> Moment:
        """Return the moment at which the weights were saved, if a checkpoint was loaded."""
        if moment.stage == "fit" or self.loaded is None:
            return moment
        completed, step = self.loaded
        return moment._replace(epochs_completed=completed, step=step)

    def add(self, found: Found, moment: Moment, seconds: float) -> Measurement:
        """Add a measurement to the history.

        Args:
            found: What was found.
            moment: When it was measured.
            seconds: How long it took.

        Returns:
            The measurement.
        """
        counts = found.answer.counts
        book = {
            "epochs_completed": float(moment.epochs_completed),
            "seconds": seconds,
            "figure_seconds": self.figure_seconds,
            "num_classes": float((counts > 0).sum()),
            "num_samples": float(counts.sum()),
            "failures": float(self.failures),
        }
        measurement = found.measurement(
            self.probe.key,
            book,
            epochs_completed=moment.epochs_completed,
            step=moment.step,
            seconds=seconds,
            stage=moment.stage,
            probe=self.probe.settings,
        )
        self.rows.append(measurement)
        self.figure_seconds = 0.0
        if moment.stage == "fit":
            self.measured.add(moment.key)
        return measurement

    def timeline(self, place: int = -1) -> Timeline:
        """Return the measurements of the same stage up to the one at a place in the history."""
        history = self.history
        stage = history[place].stage
        return self.timeline_of(of_stage(self.rows, stage, range(len(history))[place]))

    def timeline_of(self, measurements: History) -> Timeline:
        """Return one or more measurements of a stage as a timeline."""
        of_training = self.probe.source == "train" and measurements[-1].stage == "fit"
        return Timeline(self.measure.family, self.probe.key, measurements, of_training)

    def fitted(self) -> History:
        """Return the measurements of ``fit``."""
        return of_stage(self.rows, "fit")

    def to_state(self) -> dict[str, Any]:
        """Return history and failures as primitives and tensors, a few whatever the length.

        The tensors share memory with the history, which is not written to again.
        """
        return {"history": state_of(self.rows), "failures": self.failures}

    def load_state(self, state: dict[str, Any]) -> list[str]:
        """Restore history and failures from a checkpoint; return what is damaged and left out.

        A history that the one of the checkpoint does not begin with counts as that of an earlier
        run.
        """
        if self.stage != "fit" and len(self.rows):
            return []  # testing an early checkpoint must not discard the later history
        rows, lost = rows_of(state.get("history", state_of(Rows())))
        failures = state.get("failures", 0)
        if not is_count(failures):
            failures, lost = 0, [*lost, "the number of failures"]
        known = [*self.earlier, self.rows]
        self.earlier = [each for each in known if len(each) and not each.begins(rows)]
        self.failures = failures
        self._go_on_with(rows)
        return lost

    def _go_on_with(self, rows: Rows) -> None:
        self.rows = rows
        fitted = self.fitted()
        self.measured, self.concluded = {*fitted.series("epochs_completed")}, len(fitted)
