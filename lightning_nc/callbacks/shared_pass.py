"""One pass for all callbacks that are due on the same probe, and what happens if it fails."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_nc.callbacks.epoch_metrics import compute_with_others
from lightning_nc.callbacks.failures import (
    count_failures,
    names_of,
    tell_of_failures,
    without_inapplicable,
)
from lightning_nc.callbacks.messages import safely, say_once, tell_once
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
from lightning_nc.callbacks.trainer_access import stage_of, trainer_loader, trainer_runner
from lightning_nc.guards.generators import generators_kept
from lightning_nc.measures.measure import Evaluation
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.notes import change_note
from lightning_nc.passes.agreement import MissedMeeting
from lightning_nc.passes.meeting import meeting_place
from lightning_nc.passes.request import Answer

Found = tuple[Answer, Evaluation] | Exception


@generators_kept()  # plotting and solvers may use random numbers
@torch.inference_mode(False)  # which `trainer.validate()` and `test()` turn on
@torch.no_grad()
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

    Args:
        trainer: The Trainer.
        pl_module: The network.
        records: Records of the callbacks that measure now; the first of them leads.
        everything: Records of all our callbacks in the Trainer, for the layout of dashboards.
        moment: The moment of the run.
    """
    started = time.perf_counter()
    found = _found(trainer, pl_module, records, moment)
    seconds = time.perf_counter() - started
    measured: list[tuple[Record, Measurement]] = []
    for record, each in zip(records, found, strict=True):
        record.attempts += 1
        if not isinstance(each, Exception):
            measurement = record.add(*each, moment, seconds)
            measured.append((record, measurement))
            _tell(trainer, record, *each)
    failed = [(r, e) for r, e in zip(records, found, strict=True) if isinstance(e, Exception)]
    failed = without_inapplicable(trainer, failed, moment)
    count_failures(failed, moment)
    values = {key: value for _, each in measured for key, value in each.values.items()}
    values |= {record.prefix + "failures": float(record.failures) for record, _ in failed}
    if values:
        publish_values(trainer, records[0].told, everything, values, moment)
    for record, measurement in measured:
        publish_figures_and_tables(trainer, record, measurement)
    tell_of_failures(trainer, failed, moment)
    if moment.stage == "fit":
        advise_without_value(trainer, records)


def _found(trainer: Any, pl_module: Any, records: Sequence[Record], moment: Moment) -> list[Found]:
    """Return the answer and its evaluation for each callback, or its error."""
    try:
        answers = _answers(trainer, pl_module, records, moment)
    except Exception as error:
        records[0].plans.clear()  # the data may have changed since
        return [_kept(error, records)] * len(records)
    return [_evaluated(record, answer) for record, answer in zip(records, answers, strict=True)]


def _evaluated(record: Record, answer: Answer | Exception) -> Found:
    """Evaluate an answer; all processes have the same sums, so a failure occurs on all of them."""
    if isinstance(answer, Exception):
        return _kept(answer, [record])
    try:
        return answer, record.measure.evaluate(answer)
    except Exception as error:
        return _kept(error, [record])


def _kept(error: Exception, records: Sequence[Record]) -> Exception:
    """Return an error; unless it is raised, drop its frames, which hold memory of the pass."""
    if any(record.on_error == "raise" for record in records):
        return error
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _answers(
    trainer: Any, pl_module: Any, records: Sequence[Record], moment: Moment
) -> list[Answer | Exception]:
    """Run one pass for all records; its plan is kept for the next measurement."""
    leader, probe = records[0], records[0].probe
    together = tuple(record.prefix for record in records)
    _gather(trainer, records, moment)
    processes = trainer_processes(trainer)._replace(requests=len(records))
    with progress_line(trainer, f"{names_of(records)} on '{probe.key}'") as advance:
        one_pass = leader.measure.passes(
            trainer_runner(trainer, pl_module, probe, processes.in_step, advance),
            lambda: _source(trainer, probe.source),
            probe,
            [record.measure.request() for record in records],
            processes,
            leader.plans.pop(together, None),
        )
        with stage_of(trainer, probe.source):
            answers = one_pass.run()
    if one_pass.plan is not None and one_pass.only_planned_failures:
        leader.plans[together] = one_pass.plan
    return answers


def _gather(trainer: Any, records: Sequence[Record], moment: Moment) -> None:
    """Wait until all processes have come to the measurement, before any enters a collective.

    Raises:
        MissedMeeting: On all processes, if some have not come in time.
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
            f"process {who} did not reach this measurement within {seconds:.3g} s. If it is slower "
            "than the others, increase Probe(wait_seconds=...). If it waits in a communication "
            "that the others enter later, such as one of another callback, list "
            f"{leader.name} first."
        )


def _source(trainer: Any, source: Any) -> Any:
    return trainer_loader(trainer, source) if isinstance(source, str) else source


def _tell(
    trainer: Any,
    record: Record,
    answer: Answer,
    evaluation: Evaluation,
) -> None:
    """Report notes and alerts once each, and the events of this measurement.

    A failure on the first process alone must not stop it: the others would wait.
    """
    who = f"{record.name} on '{record.probe.key}'"
    timeline = record.timeline()
    of_change = change_note(timeline) if timeline.last.stage == "fit" else {}
    notes = {**answer.notes, **evaluation.notes, **of_change}
    if not record.asked_for:  # what has no value here was not asked for, so it is no warning
        for topic, text in notes.items():
            say_once(trainer, record.told, topic, f"{who}: {text}")
        notes = {}
    for topic, text in {**notes, **evaluation.alerts}.items():
        if tell_once(trainer, record.told, topic, f"{who}: {text}") and topic in evaluation.alerts:
            send_alerts(trainer, record.told, topic, f"{who}: {text}")

    def tell_events() -> None:
        if answer.pooling and "pooling" not in record.told:
            record.told.add("pooling")
            rank_zero_info(f"{who}: {_pooling_in_words(answer)}")
        for title, text in record.measure.events(timeline).items():
            # nothing is wrong, so it goes to Lightning's log, which is set up to be shown
            rank_zero_info(f"{who}: {text}")
            send_alerts(trainer, record.told, title, f"{who}: {text}")

    if trainer.is_global_zero:
        safely(trainer, record.told, "report what has happened", tell_events)


def _pooling_in_words(answer: Answer) -> str:
    """Say once how layers are pooled, if that was chosen and they are not merely flattened."""
    of_each: dict[str, list[str]] = {}
    for name, words in answer.pooling.items():
        of_each.setdefault(words, []).append(name)
    said = [f"{', '.join(_first_and_last(names))}: {words}" for words, names in of_each.items()]
    return f"layers are pooled as suits their shapes ({'; '.join(said)}); pool= says otherwise."


def _first_and_last(names: list[str]) -> list[str]:
    return names if len(names) < 4 else [names[0], f"{len(names) - 2} more", names[-1]]
