"""One pass for all callbacks that are due on the same probe, and what happens if it fails."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_nc.callbacks.epoch_metrics import compute_with_others
from lightning_nc.callbacks.messages import safely, tell, tell_once
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import advise_without_value
from lightning_nc.callbacks.progress import progress_line
from lightning_nc.callbacks.publishing import (
    publish_figures_and_tables,
    publish_values,
    send_alerts,
)
from lightning_nc.callbacks.record import Record
from lightning_nc.callbacks.strategies import trainer_processes
from lightning_nc.callbacks.trainer_access import trainer_loader, trainer_runner
from lightning_nc.guards.generators import generators_kept
from lightning_nc.measures.measure import Evaluation
from lightning_nc.measures.measurement import Measurement
from lightning_nc.passes.agreement import MissedMeeting, told_by
from lightning_nc.passes.meeting import meeting_place
from lightning_nc.passes.request import Answer

Found = tuple[Answer, Evaluation] | Exception


@generators_kept()  # what draws figures, or solves a model, may draw random numbers
@torch.inference_mode(False)  # of which `trainer.validate()` and `test()` make use
@torch.no_grad()
def measure_together(
    trainer: Any,
    pl_module: Any,
    records: Sequence[Record],
    everything: Sequence[Record],
    moment: Moment,
) -> None:
    """Measure once for several callbacks of equal probes and passes.

    A failure is one on all processes, by vote, and the first process tells of it. It is raised if
    any of the callbacks concerned has ``on_error="raise"``; else they skip this measurement.

    Args:
        trainer: The Trainer.
        pl_module: The network.
        records: What the callbacks keep that measure now; the first of them leads.
        everything: The same of all callbacks of the Trainer, for the layout of dashboards.
        moment: The moment of the run.
    """
    started = time.perf_counter()
    found = _found(trainer, pl_module, records, moment)
    seconds = time.perf_counter() - started
    measured: list[tuple[Record, Measurement]] = []
    for record, each in zip(records, found, strict=True):
        if not isinstance(each, Exception):
            measurement = record.add(*each, moment, seconds)
            measured.append((record, measurement))
            _tell(trainer, record, each[1], measurement)
    failed = [(r, e) for r, e in zip(records, found, strict=True) if isinstance(e, Exception)]
    _count(failed, moment)
    values = {key: value for _, each in measured for key, value in each.values.items()}
    values |= {record.prefix + "failures": float(record.failures) for record, _ in failed}
    publish_values(trainer, records[0].told, everything, values, moment)
    for record, measurement in measured:
        publish_figures_and_tables(trainer, record, measurement)
    _tell_of_failures(trainer, failed, moment)
    if moment.stage == "fit":
        advise_without_value(trainer, records)


def _found(trainer: Any, pl_module: Any, records: Sequence[Record], moment: Moment) -> list[Found]:
    """What each callback is answered and makes of it, or why it has nothing."""
    try:
        answers = _answers(trainer, pl_module, records, moment)
    except Exception as error:
        return [_kept(error, records)] * len(records)
    return [_evaluated(record, answer) for record, answer in zip(records, answers, strict=True)]


def _evaluated(record: Record, answer: Answer | Exception) -> Found:
    """All processes have the same sums, so that what fails here fails on all of them."""
    if isinstance(answer, Exception):
        return _kept(answer, [record])
    try:
        return answer, record.measure.evaluate(answer)
    except Exception as error:
        return _kept(error, [record])


def _kept(error: Exception, records: Sequence[Record]) -> Exception:
    """An error that is only told of, without the frames that hold memory of what has failed."""
    if any(record.on_error == "raise" for record in records):
        return error
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _answers(
    trainer: Any, pl_module: Any, records: Sequence[Record], moment: Moment
) -> list[Answer | Exception]:
    """One pass over the network; its plan is kept for the next."""
    leader, probe = records[0], records[0].probe
    together = tuple(record.prefix for record in records)
    _gather(trainer, records, moment)
    processes = trainer_processes(trainer)
    with progress_line(trainer, f"{_names(records)} on '{probe.key}'") as advance:
        one_pass = leader.measure.passes(
            trainer_runner(trainer, pl_module, processes.in_step, advance),
            lambda: _source(trainer, probe.source),
            probe,
            [record.measure.request() for record in records],
            processes,
            leader.plans.pop(together, None),
        )
        answers = one_pass.run()
    if one_pass.plan is not None:
        leader.plans[together] = one_pass.plan
    return answers


def _gather(trainer: Any, records: Sequence[Record], moment: Moment) -> None:
    """Let no process enter a collective of the measurement before all have come to it.

    Raises:
        MissedMeeting: On all processes, if some did not come in time.
    """
    leader, place = records[0], meeting_place()
    if trainer.world_size == 1 or place is None:
        return
    seconds = leader.probe.wait_seconds / 2**leader.missed
    # the same callback does not measure twice at the same point of a run
    name = f"{leader.prefix} of run {leader.runs}, {moment.stage}, {moment.epochs_completed}"
    absent = place.meet(name, seconds, partial(compute_with_others, trainer, place))
    leader.missed = leader.missed + 1 if absent else 0
    if absent:
        who = ", ".join(map(str, absent))
        raise MissedMeeting(
            f"process {who} did not come to it within {seconds:.3g} s. If it is slower than the "
            "others, raise Probe(wait_seconds=...). If it is in a communication that the others "
            f"enter later, such as that of another callback, list {leader.name} first."
        )


def _source(trainer: Any, source: Any) -> Any:
    return trainer_loader(trainer, source) if isinstance(source, str) else source


def _tell(trainer: Any, record: Record, evaluation: Evaluation, measurement: Measurement) -> None:
    """Tell what is undefined and what needs attention, once, and what has happened.

    What fails on the first process alone must not stop it: the others would wait.
    """
    who = f"{record.name} on '{record.probe.key}'"
    for topic, text in {**evaluation.notes, **evaluation.alerts}.items():
        if tell_once(trainer, record.told, topic, f"{who}: {text}") and topic in evaluation.alerts:
            send_alerts(trainer, record.told, topic, f"{who}: {text}")

    def tell_events() -> None:
        for title, text in record.measure.events(record.timeline(measurement)).items():
            # nothing is wrong: where Lightning's own messages are, since that is set up to show
            rank_zero_info(f"{who}: {text}")
            send_alerts(trainer, record.told, title, f"{who}: {text}")

    if trainer.is_global_zero:
        safely(trainer, record.told, "tell what has happened", tell_events)


def _count(failed: Sequence[tuple[Record, Exception]], moment: Moment) -> None:
    """Note that measurements were skipped."""
    for record, _ in failed:
        record.plans.clear()  # the data may no longer be those they were made for
        record.failures += 1
        if moment.stage == "fit":
            record.skipped.add(moment.epochs_completed)


def _tell_of_failures(
    trainer: Any, failed: Sequence[tuple[Record, Exception]], moment: Moment
) -> None:
    """Raise a failure if that was asked for, else tell of it; a cause that several have, once."""
    for record, error in failed:
        if record.on_error == "raise":
            raise error
    for error in dict.fromkeys(error for _, error in failed):
        records = [record for record, each in failed if each is error]
        cause = told_by(trainer.global_rank, error)
        tell(
            trainer,
            f"{_names(records)} skipped the measurement on '{records[0].probe.key}' after "
            f"{moment.epochs_completed:g} epochs; {cause}{_way_out(cause)}",
        )


def _way_out(cause: str) -> str:
    """What to do about an error that is not ours, and does not say so itself."""
    if "MemoryError" in cause or "out of memory" in cause.lower():
        return ". Give Probe(cache_mb=0) or a smaller Probe(batch_size=...)."
    return ""


def _names(records: Sequence[Record]) -> str:
    return " and ".join(record.name for record in records)
