"""One pass for all callbacks that are due on the same probe, and what happens if it fails."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from lightning_nc.callbacks.epoch_metrics import compute_with_others
from lightning_nc.callbacks.failures import names_of, tell_of_failures
from lightning_nc.callbacks.lightning_internals import replicas_of
from lightning_nc.callbacks.messages import say_once
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import advise_without_value
from lightning_nc.callbacks.on_all_processes import withdraw
from lightning_nc.callbacks.progress import progress_line
from lightning_nc.callbacks.publishing import publish_values
from lightning_nc.callbacks.publishing_figures import publish_figures_and_tables
from lightning_nc.callbacks.record import Record
from lightning_nc.callbacks.recording import add_to_records
from lightning_nc.callbacks.trainer_access import (
    shards,
    stage_of,
    trainer_loader,
    trainer_runner,
)
from lightning_nc.guards.generators import generators_kept
from lightning_nc.guards.signals import signals_held
from lightning_nc.measures.given import request_of
from lightning_nc.measures.together import Found, evaluated
from lightning_nc.passes.agreement import Interrupted, MissedMeeting, Processes
from lightning_nc.passes.meeting import WaitingRoom, meeting_place
from lightning_nc.passes.request import Answer


class _BreakOff(Exception):
    """Ends the work of this process; the vote that follows tells all why."""


def measure_together(
    trainer: Any,
    pl_module: Any,
    records: Sequence[Record],
    everything: Sequence[Record],
    moment: Moment,
) -> None:
    """Measure once for several callbacks with equal probes and passes.

    By vote, a failure on one process is a failure on all, and the first process reports it. It is
    raised if any of the callbacks concerned has ``on_error="raise"``; otherwise they skip this
    measurement.

    Signals to the program come first: at the next batch all processes break off, and when all is as
    it was, the program's handlers run. That costs this measurement, which is no failure; it is due
    again when the run is resumed.

    Args:
        trainer: The Trainer.
        pl_module: The network.
        records: Records of the callbacks that measure now; the first of them leads.
        everything: Records of all our callbacks in the Trainer, for the layout of dashboards.
        moment: The moment of the run.
    """
    with signals_held() as arrived:
        shared = _Shared(trainer, pl_module, records, everything, moment, arrived)
        try:
            shared.measure()
        except Interrupted as reason:
            text = f"{shared.title}: {reason}; it is left out."
            say_once(trainer, records[0].told, "signal", text)


class _Shared(NamedTuple):
    """A measurement for several callbacks; see `measure_together` for all but the last field.

    Attributes:
        arrived: Whether a signal has arrived.
    """

    trainer: Any
    pl_module: Any
    records: Sequence[Record]
    everything: Sequence[Record]
    moment: Moment
    arrived: Callable[[], bool]

    def interrupted(self) -> bool:
        """Whether the program has other things to do."""
        return self.arrived() or getattr(self.trainer, "received_sigterm", False)

    @property
    def title(self) -> str:
        """The callbacks and their probe, as messages call them."""
        return f"{names_of(self.records)} on '{self.records[0].probe.key}'"

    @generators_kept()  # plotting and solvers may use random numbers
    @torch.inference_mode(False)  # which `trainer.validate()` and `test()` turn on
    @torch.no_grad()
    def measure(self) -> None:
        """Measure as `measure_together` does, with signals held.

        Raises:
            Interrupted: On all processes, if a signal has arrived on one of them.
        """
        trainer, records, moment = self.trainer, self.records, self.moment
        started = time.perf_counter()
        found = self._found()
        seconds = time.perf_counter() - started
        measured, failed, values = add_to_records(trainer, records, found, moment, seconds)
        if values:
            publish_values(trainer, records[0].told_of_run, self.everything, values, moment)
        for record, measurement in measured:
            if self.interrupted():
                break
            publish_figures_and_tables(trainer, record, measurement)
        tell_of_failures(trainer, failed, moment)
        if moment.stage == "fit":
            advise_without_value(trainer, records)

    def _found(self) -> list[Found | Exception]:
        """Return the answer and its evaluation for each callback, or its error."""
        try:
            answers = self._answers(self._gather())
        except Interrupted:
            raise
        except Exception as error:
            self.records[0].plans.clear()  # the data may have changed since
            return [_kept(error, self.records)] * len(self.records)
        # all processes have the same sums, so an evaluation fails on all of them
        pairs = zip(self.records, answers, strict=True)
        found = [(record, evaluated(record.measure, answer)) for record, answer in pairs]
        return [
            _kept(each, [record]) if isinstance(each, Exception) else each for record, each in found
        ]

    def _answers(self, room: WaitingRoom) -> list[Answer | Exception]:
        """Run one pass for all records; its plan is kept for the next measurement."""
        trainer, records, title = self.trainer, self.records, self.title
        leader, probe = records[0], records[0].probe
        source = probe.source
        together = tuple(record.prefix for record in records)
        among = *replicas_of(trainer), trainer.strategy.root_device  # those that read other data
        processes = Processes(*among, len(records), self.interrupted)
        if not shards(trainer):  # else forward passes communicate, which keeps processes in step
            processes = processes._replace(wait=room.wait)
        with progress_line(trainer, title) as show:

            def advance() -> None:
                room.go_on()
                show()
                if self.interrupted():
                    raise _BreakOff

            def announce(text: str) -> None:
                say_once(trainer, leader.told, "cost", f"{title}: {text}")

            def move(batch: Any) -> Any:
                room.go_on()
                return runner.move(batch)

            runner = trainer_runner(trainer, self.pl_module, probe, processes.in_step, advance)
            one_pass = leader.measure.passes(
                runner._replace(announce=announce, move=move),
                lambda: trainer_loader(trainer, source) if isinstance(source, str) else source,
                probe,
                [request_of(record.measure) for record in records],
                processes,
                leader.plans.pop(together, None),
            )
            with stage_of(trainer, source), room:
                answers = one_pass.run()
        if one_pass.plan is not None and one_pass.only_planned_failures:
            leader.plans[together] = one_pass.plan
        return answers

    def _gather(self) -> WaitingRoom:
        """Wait until all processes have come to the measurement, before any enters a collective.

        Returns:
            Where they wait for slower ones within the measurement.

        Raises:
            MissedMeeting: On all processes, if some have not come in time.
            Interrupted: On all processes, if one has stopped waiting for a signal.
        """
        trainer, leader, place = self.trainer, self.records[0], meeting_place()
        if trainer.world_size == 1 or place is None:
            return WaitingRoom()
        patience = place.within_timeout(leader.probe.wait_seconds)
        seconds = patience / 2**leader.missed
        # the same callback does not measure twice at the same point of a run: the end of an epoch,
        # or a step within it, since epochs may have more batches on one process than on another
        moment, begun = self.moment, self.moment.epochs_begun
        point = begun if moment.epochs_completed == begun else f"{begun} at step {moment.step}"
        name = f"{leader.prefix} of run {leader.runs}, {moment.stage}, {point}"
        meanwhile = partial(compute_with_others, trainer, place)
        absent = place.meet(name, seconds, meanwhile, self.interrupted)
        if absent is None:
            raise Interrupted
        leader.missed = leader.missed + 1 if absent else 0
        for record in () if absent else self.everything:  # all have looked
            withdraw(trainer, record)
        if absent:
            who = ", ".join(map(str, absent))
            raise MissedMeeting(
                f"process {who} did not reach this measurement within {seconds:.3g} s. If it is "
                "slow, increase Probe(wait_seconds=...), up to half the timeout of its group; "
                f"if another callback communicates before, list {leader.name} first."
            )
        return WaitingRoom(place, name, patience)


def _kept(error: Exception, records: Sequence[Record]) -> Exception:
    """Return an error; unless it is raised, drop its frames, which hold memory of the pass."""
    if any(record.on_error == "raise" for record in records):
        return error
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)
