"""One pass for all callbacks that are due on the same probe, and what happens if it fails."""

import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from lightning_nc.callbacks.geometry_pass import GeometryPass
from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.processes import trainer_processes
from lightning_nc.callbacks.publish import publish
from lightning_nc.callbacks.request import Answer
from lightning_nc.probe.runner import trainer_loader, trainer_runner

if TYPE_CHECKING:
    from lightning_nc.callbacks.geometry_callback import Evaluation, GeometryCallback, Moment


@torch.inference_mode(False)  # of which `trainer.validate()` and `test()` make use
@torch.no_grad()
def measure_together(
    trainer: Any, pl_module: Any, callbacks: Sequence["GeometryCallback"], moment: "Moment"
) -> None:
    """Measure once for several callbacks of equal probes; the first of them leads.

    A failure is one on all processes, by vote. With ``on_error="raise"`` on any callback it is
    raised, else the measurement is skipped.
    """
    leader, started = callbacks[0], time.perf_counter()
    probe = leader.probe
    together = tuple(callback.state_key for callback in callbacks)
    one_pass = GeometryPass(
        trainer_runner(trainer, pl_module),
        lambda: _source(trainer, probe.source),
        probe,
        [callback.request() for callback in callbacks],
        trainer_processes(trainer),
        leader.plans.get(together),
    )
    try:
        answers = one_pass.run()
        evaluations = [
            callback.evaluate(answer) for callback, answer in zip(callbacks, answers, strict=True)
        ]
    except Exception as error:
        _skip(trainer, callbacks, moment, error)
        return
    assert one_pass.plan is not None
    leader.plans[together] = one_pass.plan
    seconds = time.perf_counter() - started
    for callback, answer, evaluation in zip(callbacks, answers, evaluations, strict=True):
        _keep(trainer, callback, moment, answer, evaluation, seconds)


def _source(trainer: Any, source: Any) -> Any:
    return trainer_loader(trainer, source) if isinstance(source, str) else source


def _keep(
    trainer: Any,
    callback: "GeometryCallback",
    moment: "Moment",
    answer: Answer,
    evaluation: "Evaluation",
    seconds: float,
) -> None:
    """Add a measurement to the history of a callback, and publish it."""
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
    callback.history = [past.without_large_arrays() for past in callback.history]
    callback.history.append(measurement)
    if trainer.is_global_zero:
        _tell_once(callback, evaluation.notes)
    publish(trainer, values, moment.step, moment.epoch, _figures(callback, measurement))


def _figures(callback: "GeometryCallback", measurement: Measurement) -> Any:
    return (lambda: callback.draw(measurement)) if callback.figures else None


def _skip(
    trainer: Any, callbacks: Sequence["GeometryCallback"], moment: "Moment", error: Exception
) -> None:
    callbacks[0].plans.clear()  # the data may no longer be those it was made for
    for callback in callbacks:
        callback.failures += 1
        if moment.stage == "fit":
            callback.skipped.add(moment.epochs_completed)
    if any(callback.on_error == "raise" for callback in callbacks):
        raise error
    names = " and ".join(type(callback).__name__ for callback in callbacks)
    warnings.warn(
        f"{names} skipped the measurement on '{callbacks[0].probe.key}' after "
        f"{moment.epochs_completed:g} epochs; process {trainer.global_rank} says: "
        f"{type(error).__name__}: {error}",
        RuntimeWarning,
        stacklevel=2,
    )
    for callback in callbacks:
        failures = {callback.prefix() + "failures": float(callback.failures)}
        publish(trainer, failures, moment.step, moment.epoch)


def _tell_once(callback: "GeometryCallback", notes: dict[str, str]) -> None:
    for topic, note in notes.items():
        if topic not in callback.told:
            callback.told.add(topic)
            warnings.warn(f"{type(callback).__name__}: {note}", RuntimeWarning, stacklevel=2)
