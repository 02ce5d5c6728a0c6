"""One pass for all callbacks that are due on the same probe, and what happens if it fails."""

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_nc.callbacks.epoch_metrics import epoch_metrics
from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.meeting import meeting_place
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.monitors import advise_without_value
from lightning_nc.callbacks.processes import (
    MissedMeeting,
    tell,
    told_by,
    trainer_processes,
)
from lightning_nc.callbacks.progress import progress_line
from lightning_nc.callbacks.publish import alert, publish, publish_more, safely
from lightning_nc.callbacks.request import Answer
from lightning_nc.probe.generators import generators_kept
from lightning_nc.probe.runner import Runner, trainer_loader, trainer_runner

if TYPE_CHECKING:
    from lightning_nc.callbacks.geometry_callback import Evaluation, GeometryCallback


@generators_kept()  # what draws figures, or solves a model, may draw random numbers
@torch.inference_mode(False)  # of which `trainer.validate()` and `test()` make use
@torch.no_grad()
def measure_together(
    trainer: Any, pl_module: Any, callbacks: Sequence["GeometryCallback"], moment: Moment
) -> None:
    """Measure once for several callbacks of equal probes and passes; the first of them leads.

    A failure of the pass is one on all processes, by vote, and the first process tells of it. What
    comes before and after is the same on all processes, and so would be its failure. With
    ``on_error="raise"`` on any callback a failure is raised, else the measurement is skipped.
    """
    leader, started = callbacks[0], time.perf_counter()
    probe = leader.probe
    together = tuple(callback.state_key for callback in callbacks)
    names = " and ".join(type(callback).__name__ for callback in callbacks)
    try:
        _gather(trainer, callbacks, moment)
        processes = trainer_processes(trainer)
        with progress_line(trainer, f"{names} on '{probe.key}'") as advance:
            one_pass = leader.passes(
                _advancing(trainer_runner(trainer, pl_module, processes.in_step), advance),
                lambda: _source(trainer, probe.source),
                probe,
                [callback.request() for callback in callbacks],
                processes,
                leader.plans.get(together),
            )
            answers = one_pass.run()
        evaluations = [
            callback.evaluate(answer) for callback, answer in zip(callbacks, answers, strict=True)
        ]
    except Exception as error:
        _skip(trainer, callbacks, moment, error)
    else:
        assert one_pass.plan is not None
        leader.plans[together] = one_pass.plan
        seconds = time.perf_counter() - started
        measurements = [
            _keep(trainer, callback, moment, answer, evaluation, seconds)
            for callback, answer, evaluation in zip(callbacks, answers, evaluations, strict=True)
        ]
        publish(trainer, callbacks, _together(m.values for m in measurements), moment)
        for callback, measurement in zip(callbacks, measurements, strict=True):
            publish_more(trainer, callback, measurement)
    if moment.stage == "fit":
        advise_without_value(trainer, callbacks)


def _gather(trainer: Any, callbacks: Sequence["GeometryCallback"], moment: Moment) -> None:
    """Let no process enter a collective of the measurement before all have come to it.

    Raises:
        MissedMeeting: On all processes, if some did not come in time.
    """
    leader, place = callbacks[0], meeting_place()
    if trainer.world_size == 1 or place is None:
        return
    seconds = leader.probe.wait_seconds / 2**leader.missed
    # the same callback does not measure twice at the same point of a run
    name = f"{leader.state_key} of run {leader.runs}, {moment.stage}, {moment.epochs_completed}"
    metrics = epoch_metrics(trainer, place)
    absent = place.meet(name, seconds, metrics.compute_with_others if metrics else None)
    leader.missed = leader.missed + 1 if absent else 0
    if absent:
        who = ", ".join(map(str, absent))
        raise MissedMeeting(
            f"process {who} did not come to it within {seconds:.3g} s. If it is slower than the "
            "others, raise Probe(wait_seconds=...). If it is in a communication that the others "
            f"enter later, such as that of another callback, list {type(leader).__name__} first."
        )


def _together(of_callbacks: Iterable[Mapping[str, float]]) -> dict[str, float]:
    return {key: value for values in of_callbacks for key, value in values.items()}


def _advancing(runner: Runner, advance: Callable[[], None]) -> Runner:
    """A runner that says when the network has run, and that others can tell of their passes."""

    def call(inputs: Any) -> Any:
        outputs = runner.call(inputs)
        advance()
        return outputs

    return runner._replace(call=call, advance=advance)


def _source(trainer: Any, source: Any) -> Any:
    return trainer_loader(trainer, source) if isinstance(source, str) else source


def _keep(
    trainer: Any,
    callback: "GeometryCallback",
    moment: Moment,
    answer: Answer,
    evaluation: "Evaluation",
    seconds: float,
) -> Measurement:
    """Add a measurement to the history of a callback, and tell of it."""
    book = {
        "epochs_completed": float(moment.epochs_completed),
        "seconds": seconds,
        "failures": float(callback.failures),
    }
    values = evaluation.values | {callback.prefix() + name: v for name, v in book.items()}
    measurement = Measurement(
        moment.epochs_completed,
        moment.step,
        values,
        {name: array.cpu() for name, array in evaluation.arrays.items()},
        answer.counts.cpu(),
        seconds,
        moment.stage,
    )
    topics = {**evaluation.notes, **evaluation.alerts}
    callback.history = [past.without_large_arrays() for past in callback.history]
    callback.history.append(measurement)
    if trainer.is_global_zero:
        # what fails on this process alone must not stop it: the others would wait
        _tell_once(trainer, callback, topics, evaluation.alerts)
        tell_events = partial(_tell_events, trainer, callback, measurement)
        safely(trainer, callback.told, "tell what has come to pass", tell_events)
    return measurement


def _skip(
    trainer: Any,
    callbacks: Sequence["GeometryCallback"],
    moment: Moment,
    error: Exception,
) -> None:
    """Count a failure, and raise it or tell of it."""
    callbacks[0].plans.clear()  # the data may no longer be those it was made for
    for callback in callbacks:
        callback.failures += 1
        if moment.stage == "fit":
            callback.skipped.add(moment.epochs_completed)
    if any(callback.on_error == "raise" for callback in callbacks):
        raise error
    if trainer.is_global_zero:
        names = " and ".join(type(callback).__name__ for callback in callbacks)
        cause = told_by(trainer.global_rank, error)
        tell(
            trainer,
            f"{names} skipped the measurement on '{callbacks[0].probe.key}' after "
            f"{moment.epochs_completed:g} epochs; {cause}{_way_out(cause)}",
        )
    failures = {callback.prefix() + "failures": float(callback.failures) for callback in callbacks}
    publish(trainer, callbacks, failures, moment)


def _way_out(cause: str) -> str:
    """What to do about what is none of our own errors, which say so themselves."""
    if "MemoryError" in cause or "out of memory" in cause.lower():
        return ". Give Probe(cache_mb=0) or a smaller Probe(batch_size=...)."
    return ""


def _tell_once(
    trainer: Any, callback: "GeometryCallback", topics: Mapping[str, str], alerts: Container[str]
) -> None:
    for topic, text in topics.items():
        if topic not in callback.told:
            callback.told.add(topic)
            tell(trainer, f"{type(callback).__name__}: {text}")
            if topic in alerts:
                alert(trainer, callback.told, topic, text)


def _tell_events(trainer: Any, callback: "GeometryCallback", measurement: Measurement) -> None:
    for title, text in callback.events(measurement).items():
        # no cause for a warning; where Lightning's own messages are, since that is set up to show
        rank_zero_info(f"{type(callback).__name__}: {text}")
        alert(trainer, callback.told, title, text)
