"""Points of a run at which callbacks may be due, from Lightning's hooks and counters."""

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_nc.callbacks.lightning_internals import (
    Progress,
    batches_that_stepped,
    progress_of,
    trained_until,
)
from lightning_nc.callbacks.schedule import When

_ALWAYS: tuple[When, ...] = ("train_epoch_end", "validation_end")


class Moment(NamedTuple):
    """A point of a run.

    Attributes:
        stage: ``"fit"``, ``"validate"`` or ``"test"``.
        whens: The values of `Schedule.when` that may be due.
        epochs_completed: Training epochs completed so far; fractional within an epoch.
        last_epoch: Number of epochs after which training ends; None if unknown.
        step: The step under which to log.
        batches: Number of batches of an epoch that has not ended and whose length is unknown, so
            that `epochs_completed` is an estimate; else 0.
    """

    stage: str
    whens: tuple[When, ...]
    epochs_completed: float
    last_epoch: int | None
    step: int
    batches: int = 0

    @property
    def key(self) -> Hashable:
        """What tells moments of ``fit`` apart."""
        return (self.epochs_completed, self.batches) if self.batches else self.epochs_completed

    @property
    def epochs_begun(self) -> int:
        """The number of epochs that have begun; those completed, if none is under way."""
        if self.batches:
            return math.floor(self.epochs_completed) + 1
        return math.ceil(self.epochs_completed)

    @property
    def epoch(self) -> int:
        """Lightning's number of the epoch, from 0; in ``fit`` that of the epoch just trained."""
        return max(self.epochs_begun - 1, 0) if self.stage == "fit" else self.epochs_begun


def start_of_training(trainer: Any) -> Moment:
    """Return the moment before training or, on resuming, the moment of the checkpoint.

    Lightning does not repeat the hooks that were still to follow when a checkpoint was written: the
    end of the epoch if it was written on the last batch, validation if that was due next.
    """
    progress = progress_of(trainer)
    ended, processed = progress.between_epochs, progress.batches_processed
    share = 0 if ended else min(processed / trainer.num_training_batches, 1)
    completed = trainer.current_epoch + share
    whens: list[When] = ["train_epoch_end"] if ended else []
    # if epochs have fewer batches than before, the share of the epoch is unknown
    told = ended or progress.last_batch or processed < trainer.num_training_batches
    if (ended and completed == 0) or (told and _validates(trainer, completed)):
        whens.append("validation_end")
    # if Lightning has not counted the last batch yet, its step is already one less
    step = _step(trainer, at_epoch_end=ended and progress.counted)
    return Moment("fit", tuple(whens), completed, trainer.max_epochs, step)


def end_of_training_epoch(trainer: Any) -> Moment:
    """Return the moment after a training epoch."""
    completed, step = trainer.current_epoch + 1, _step(trainer, at_epoch_end=True)
    return Moment("fit", ("train_epoch_end",), completed, trainer.max_epochs, step)


def end_of_validation(trainer: Any) -> Moment:
    """Return the moment after validation, within ``fit`` or ``validate``."""
    step = _step(trainer, at_epoch_end=False)
    if trainer.state.fn == "validate":
        return Moment("validate", _ALWAYS, trainer.current_epoch, None, step)
    progress = progress_of(trainer)
    batches, share = 0, min(progress.batches_ready / trainer.num_training_batches, 1)
    if progress.last_batch:
        share = 1
    elif math.isinf(trainer.num_training_batches):  # of an iterable dataset
        batches, share = progress.batches_ready, _likely_share(progress, trainer.current_epoch)
    completed = trainer.current_epoch + share
    return Moment("fit", ("validation_end",), completed, trainer.max_epochs, step, batches)


def _likely_share(progress: Progress, epochs: int) -> float:
    """The share of an epoch that is over if it is as long as earlier ones; 0 in the first."""
    if not progress.batches_before:
        return 0
    ready = progress.batches_ready
    at_most = ready / (ready + 1)  # at least one is still to come
    return min(ready * epochs / progress.batches_before, at_most)


def end_of_test(trainer: Any) -> Moment:
    """Return the moment after testing."""
    step = _step(trainer, at_epoch_end=False)
    return Moment("test", _ALWAYS, trainer.current_epoch, None, step)


def end_of_training(trainer: Any) -> Moment:
    """Return the moment after the last epoch, whether or not it was known to be the last."""
    completed, step = trainer.current_epoch, _step(trainer, at_epoch_end=True)
    return Moment("fit", _ALWAYS, completed, completed, step)


def of_checkpoint(checkpoint: Mapping[str, Any]) -> tuple[float, int]:
    """Return the epochs completed and Lightning's logging step at the time of a checkpoint.

    Raises:
        Exception: If these cannot be told.
    """
    epochs, step = trained_until(checkpoint)
    if not 0 <= epochs < math.inf:
        raise ValueError(f"{epochs} epochs")
    return epochs, int(step)


def read_checkpoint(path: str | Path) -> Any:
    """Return what a checkpoint contains beside numbers: tensors have shapes alone."""
    return torch.load(path, map_location="meta", mmap=True, weights_only=False)


def _step(trainer: Any, at_epoch_end: bool) -> int:
    """Return the step under which Lightning itself logs now: batches, not optimizer steps."""
    batches = batches_that_stepped(trainer)
    return max(batches - 1, 0) if at_epoch_end else batches


def _validates(trainer: Any, epochs_completed: float) -> bool:
    """Whether Lightning validates after this number of epochs, which may be fractional."""
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if not trainer.enable_validation or interval is None:  # None: by the clock
        return False
    epoch, per_epoch = math.ceil(epochs_completed) - 1, trainer.num_training_batches
    if every is not None and (epoch + 1) % every:
        return False
    if math.isinf(interval) or math.isinf(per_epoch):
        return epochs_completed == epoch + 1
    batches = (epochs_completed - (0 if every is None else epoch)) * per_epoch
    return round(batches) % interval == 0
