"""One pass for all callbacks that are due on the same probe, and what happens if it fails."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from lightning_nc.callbacks.epoch_metrics import compute_with_others
from lightning_nc.callbacks.failures import names_of, tell_of_failures
from lightning_nc.callbacks.messages import say_once
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import advise_without_value
from lightning_nc.callbacks.on_all_processes import withdraw
from lightning_nc.callbacks.progress import progress_line
from lightning_nc.callbacks.publishing import publish_figures_and_tables, publish_values
from lightning_nc.callbacks.record import Record
from lightning_nc.callbacks.recording import add_to_records
from lightning_nc.callbacks.strategies import trainer_processes
from lightning_nc.callbacks.trainer_access import stage_of, trainer_loader, trainer_runner
from lightning_nc.guards.generators import generators_kept
from lightning_nc.guards.signals import signals_held
from lightning_nc.measures.given import request_of
from lightning_nc.measures.together import Found, evaluated
from lightning_nc.passes.agreement import Interrupted, MissedMeeting
from lightning_nc.passes.meeting import meeting_place
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
        interrupted = lambda: arrived() or getattr(trainer, "received_sigterm", False)  # noqa: E731
        try:
            _measure(trainer, pl_module, records, everything, moment, interrupted)
        except Interrupted as reason:
            text = f"{names_of(records)} on '{records[0].probe.key}': {reason}; it is left out."
            say_once(trainer, records[0].told, "signal", text)


@generators_kept()  # plotting and solvers may use random numbers
@torch.inference_mode(False)  # which `trainer.validate()` and `test()` turn on
@torch.no_grad()
def _measure(
    trainer: Any,
    pl_module: Any,
    records: Sequence[Record],
    everything: Sequence[Record],
    moment: Moment,
    interrupted: Callable[[], bool],
) -> None:
    """Measure as `measure_together` does, with signals held.

    Raises:
        Interrupted: On all processes, if a signal has arrived on one of them.
    """
    started = time.perf_counter()
    found = _found(trainer, pl_module, records, everything, moment, interrupted)
    seconds = time.perf_counter() - started
    measured, failed, values = add_to_records(trainer, records, found, moment, seconds)
    if values:
        publish_values(trainer, records[0].told_of_run, everything, values, moment)
    for record, measurement in measured:
        if interrupted():
            break
        publish_figures_and_tables(trainer, record, measurement)
    tell_of_failures(trainer, failed, moment)
    if moment.stage == "fit":
        advise_without_value(trainer, records)


def _found(
    trainer: Any,
    pl_module: Any,
    records: Sequence[Record],
    everything: Sequence[Record],
    moment: Moment,
    interrupted: Callable[[], bool],
) -> list[Found | Exception]:
    """Return the answer and its evaluation for each callback, or its error."""
    try:
        _gather(trainer, records, everything, moment, interrupted)
        answers = _answers(trainer, pl_module, records, interrupted)
    except Interrupted:
        raise
    except Exception as error:
        records[0].plans.clear()  # the data may have changed since
        return [_kept(error, records)] * len(records)
    # all processes have the same sums, so an evaluation fails on all of them
    found = [evaluated(record.measure, a) for record, a in zip(records, answers, strict=True)]
    return [
        _kept(each, [record]) if isinstance(each, Exception) else each
        for record, each in zip(records, found, strict=True)
    ]


def _kept(error: Exception, records: Sequence[Record]) -> Exception:
    """Return an error; unless it is raised, drop its frames, which hold memory of the pass."""
    if any(record.on_error == "raise" for record in records):
        return error
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _answers(
    trainer: Any,
    pl_module: Any,
    records: Sequence[Record],
    interrupted: Callable[[], bool],
) -> list[Answer | Exception]:
    """Run one pass for all records; its plan is kept for the next measurement."""
    leader, probe = records[0], records[0].probe
    together = tuple(record.prefix for record in records)
    processes = trainer_processes(trainer)
    processes = processes._replace(requests=len(records), interrupted=interrupted)
    with progress_line(trainer, f"{names_of(records)} on '{probe.key}'") as show:

        def advance() -> None:
            show()
            if interrupted():
                raise _BreakOff

        def announce(text: str) -> None:
            who = f"{names_of(records)} on '{probe.key}'"
            say_once(trainer, leader.told, "cost", f"{who}: {text}")

        runner = trainer_runner(trainer, pl_module, probe, processes.in_step, advance)
        one_pass = leader.measure.passes(
            runner._replace(announce=announce),
            lambda: _source(trainer, probe.source),
            probe,
            [request_of(record.measure) for record in records],
            processes,
            leader.plans.pop(together, None),
        )
        with stage_of(trainer, probe.source):
            answers = one_pass.run()
    if one_pass.plan is not None and one_pass.only_planned_failures:
        leader.plans[together] = one_pass.plan
    return answers


def _gather(
    trainer: Any,
    records: Sequence[Record],
    everything: Sequence[Record],
    moment: Moment,
    interrupted: Callable[[], bool],
) -> None:
    """Wait until all processes have come to the measurement, before any enters a collective.

    Raises:
        MissedMeeting: On all processes, if some have not come in time.
        Interrupted: On a process that has stopped waiting for a signal.
    """
    leader, place = records[0], meeting_place()
    if trainer.world_size == 1 or place is None:
        return
    seconds = place.within_timeout(leader.probe.wait_seconds) / 2**leader.missed
    # the same callback does not measure twice at the same point of a run
    name = f"{leader.prefix} of run {leader.runs}, {moment.stage}, {moment.epochs_completed}"
    absent = place.meet(name, seconds, partial(compute_with_others, trainer, place), interrupted)
    if absent and interrupted():
        raise Interrupted
    leader.missed = leader.missed + 1 if absent else 0
    for record in () if absent else everything:  # all have looked
        withdraw(trainer, record)
    if absent:
        who = ", ".join(map(str, absent))
        raise MissedMeeting(
            f"process {who} did not reach this measurement within {seconds:.3g} s. If it is slower "
            "than the others, increase Probe(wait_seconds=...); they wait for half the timeout of "
            "their group at most. If it waits in a communication that the others enter later, such "
            f"as one of another callback, list {leader.name} first."
        )


def _source(trainer: Any, source: Any) -> Any:
    return trainer_loader(trainer, source) if isinstance(source, str) else source
