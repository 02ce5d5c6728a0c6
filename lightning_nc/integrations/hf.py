"""Measurements in the Trainer of Hugging Face Transformers, logged by that Trainer."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from transformers import TrainerCallback

from lightning_nc.callbacks.failures import tell_how_often, tell_of_failures
from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.messages import safely
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.record import Record
from lightning_nc.callbacks.recording import add_to_records
from lightning_nc.guards.generators import generators_kept
from lightning_nc.measures.together import Found, measured_together
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.probe import Probe


class GeometryCallback(TrainerCallback):
    """Callback of Hugging Face's Trainer that measures when our callbacks are due, and logs.

    Values have the keys that they have in Lightning, and go to the Trainer's own log: to
    ``state.log_history`` and to all that it reports to. Each callback has its ``history`` and
    ``plot()`` afterwards. Training is what it is without. Of several processes the first measures
    alone, and nothing is communicated; a sharded network (FSDP, DeepSpeed) is not measured.

    Figures are not logged. `MinorityCollapse` is not told how often classes occur in training:
    give ``class_counts``. What was measured is not in checkpoints.

    Args:
        trainer: The Trainer, which logs.
        callbacks: Our callbacks, with their probes and schedules. A probe on ``"train"`` or
            ``"val"`` is of the Trainer's ``train_dataset`` or ``eval_dataset``, read as it reads
            them.

    Raises:
        ValueError: If a callback is none of ours.

    Example::

        from lightning_nc import callbacks_for
        from lightning_nc.integrations.hf import GeometryCallback
        trainer.add_callback(GeometryCallback(trainer, callbacks_for("train")))
    """

    def __init__(self, trainer: Any, callbacks: Iterable[MeasureCallback]) -> None:
        self.trainer, self.callbacks = trainer, list(callbacks)
        for each in self.callbacks:
            if not isinstance(each, MeasureCallback):
                raise ValueError(
                    "callbacks must be callbacks of lightning_nc, such as [NeuralCollapse()], got "
                    f"{each!r}."
                )

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure before training."""
        # made once, since Accelerate keeps each loader that it prepares
        self._val_loader = cache(self.trainer.get_eval_dataloader)
        for record in self._records:
            record.begin_run("fit", fresh=state.global_step == 0)
        if state.global_step == 0:
            self._measure(state, control, given)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure after an epoch, or where training ends within one."""
        self._measure(state, control, given)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Say how many measurements were skipped."""
        tell_how_often(_Process(state), self._records)

    @property
    def _records(self) -> list[Record]:
        return [each.record for each in self.callbacks]

    def _measure(self, state: Any, control: Any, given: dict[str, Any]) -> None:
        """Measure for the callbacks that are due, on the first process, and log."""
        if not state.is_world_process_zero:
            return
        epochs = round(float(state.epoch or 0), 6)
        last = math.ceil(epochs) if control.should_training_stop else state.num_train_epochs
        moment = Moment(
            "fit", ("train_epoch_end", "validation_end"), epochs, last, state.global_step
        )
        due = [record for record in self._records if record.due(moment)]
        values: dict[str, float] = {}
        for probe in dict.fromkeys(record.probe for record in due):
            of_probe = [record for record in due if record.probe == probe]
            known = given | {"val_loader": self._val_loader}
            values |= _measured(self.trainer, of_probe, moment, _Process(state), known)
        if values:
            # logging clears the order to log, which other callbacks may have given
            ordered = control.should_log
            log = partial(self.trainer.log, values)
            safely(_Process(state), due[0].told, "log by the Trainer", log)
            control.should_log = ordered


class _Process:
    """What is known of the process, in place of a Trainer of Lightning."""

    loggers: Sequence[Any] = ()
    global_rank, world_size = 0, 1  # no other process waits for this one

    def __init__(self, state: Any) -> None:
        self.is_global_zero = bool(state.is_world_process_zero)


@generators_kept()
@torch.inference_mode(False)
@torch.no_grad()
def _measured(
    trainer: Any,
    records: Sequence[Record],
    moment: Moment,
    process: _Process,
    given: dict[str, Any],
) -> Mapping[str, float]:
    """Measure once for callbacks with equal probes, and return the values under their keys."""
    started = time.perf_counter()
    try:
        found = _found(trainer, records, given)
    except Exception as error:
        found = [error] * len(records)
    seconds = time.perf_counter() - started
    _, failed, values = add_to_records(process, records, found, moment, seconds)
    tell_of_failures(process, failed, moment)
    return values


def _found(
    trainer: Any, records: Sequence[Record], given: dict[str, Any]
) -> list[Found | Exception]:
    """What is found for each callback, or why it cannot be measured."""
    for name in ("fsdp", "deepspeed"):
        if getattr(trainer, f"is_{name}_enabled", False):
            raise ValueError(
                f"the parameters are sharded ({name}), so that one process cannot measure alone. "
                "Measure checkpoints: lightning_nc.measure(model, loader)."
            )
    probe = _with_data(records[0].probe, trainer, given)
    runner = plain_runner(given["model"], probe.forward)
    return measured_together(runner, probe, [record.measure for record in records])


def _with_data(probe: Probe, trainer: Any, given: dict[str, Any]) -> Probe:
    """The probe with a loader of the Trainer in place of its name."""
    if not isinstance(probe.source, str):
        return probe
    if probe.source == "train":
        return replace(probe, source=given["train_dataloader"], name=probe.key)
    if probe.source == "val" and trainer.eval_dataset is not None:
        return replace(probe, source=given["val_loader"](), name=probe.key)
    raise ValueError(
        f'The Trainer has no data for a probe on "{probe.source}": give its eval_dataset for '
        '"val", or a Probe(dataset, name="my_probe").'
    )
