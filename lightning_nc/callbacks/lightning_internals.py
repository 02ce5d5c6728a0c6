"""The private names of Lightning that the package uses, each behind one function.

Lightning may rename them at any time. Each docstring says what a name stands for and what is lost
without it; a missing name must not stop a run. `tests/callbacks/test_private_names.py` removes them
one by one.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch


class Progress(NamedTuple):
    """How far training has progressed.

    Attributes:
        between_epochs: Whether every epoch that has begun is complete.
        batches_ready: Number of batches of the current epoch that have begun.
        batches_processed: Number of batches of the current epoch that have been trained on.
        batches_before: Number of batches of earlier epochs.
        last_batch: Whether the current batch is the last of its epoch.
        counted: Whether the loggers' step includes the last batch that was trained on.
    """

    between_epochs: bool
    batches_ready: int
    batches_processed: int
    batches_before: int
    last_batch: bool
    counted: bool


def progress_of(trainer: Any) -> Progress:
    """Return the counters of the training loop.

    Without them it is unknown whether a measurement is due: none is made, and one warning says so.
    """
    epochs = trainer.fit_loop.epoch_progress.current
    progress = trainer.fit_loop.epoch_loop.batch_progress
    batches = progress.current
    return Progress(
        between_epochs=epochs.completed == epochs.ready,
        batches_ready=batches.ready,
        batches_processed=batches.processed,
        batches_before=progress.total.ready - batches.ready,
        last_batch=progress.is_last_batch,
        counted=batches.completed == batches.ready,
    )


def batches_that_stepped(trainer: Any) -> int:
    """Return the step under which Lightning logs: it counts batches, not optimizer steps.

    Without it, values are logged under the number of optimizer steps.
    """
    return getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step)


def monitored_metrics(trainer: Any) -> dict[str, torch.Tensor]:
    """Return the dictionary behind ``trainer.callback_metrics`` without computing metrics.

    Reading the property would compute the user's metrics before they are complete, and
    communicate. Without the name, EarlyStopping and ModelCheckpoint do not find our values.
    """
    with suppress(AttributeError):
        found = trainer._logger_connector._callback_metrics
        return found if isinstance(found, dict) else {}
    return {}


def loaders_of(trainer: Any, source: str) -> Any:
    """Return the loaders of a Trainer that a source names, as the user gave them; None without any.

    A loop that has not begun has a data source instead, which may call the user's code. Without
    these names the probe finds no loader, and the error says to give one.
    """
    with suppress(AttributeError):
        if source == "train":
            loop = trainer.fit_loop
        elif source == "test":
            loop = trainer.test_loop
        else:
            validates = trainer.state.fn == "validate"
            loop = trainer.validate_loop if validates else trainer.fit_loop.epoch_loop.val_loop
        if loop._combined_loader is not None:
            return loop._combined_loader.iterables
        if loop._data_source.is_defined():
            loaders = loop._data_source.dataloader()
            return getattr(loaders, "iterables", loaders)  # it may be a CombinedLoader
    return None


def before_transfer(pl_module: Any) -> Callable[..., Any]:
    """Return ``on_before_batch_transfer`` together with what Lightning does around it.

    Without the name, only the public hook is called.
    """
    return getattr(pl_module, "_on_before_batch_transfer", pl_module.on_before_batch_transfer)


def epoch_results(trainer: Any) -> Any:
    """Return what the training epoch has logged so far; None without the name.

    Without this name or those below, a process that computes metrics alone counts as one that does
    not come to the measurement.
    """
    with suppress(AttributeError):
        return trainer.fit_loop.epoch_loop._results
    return None


def pending_metrics(results: Any) -> list[str]:
    """Return the names of metrics not computed yet that need all processes, in order."""
    with suppress(AttributeError):
        return [
            name
            for name, metric in results.valid_items()
            if metric.meta.on_epoch and metric._computed is None and _takes_all(metric)
        ]
    return []


def compute_metric(results: Any, name: str) -> None:
    """Compute a metric of the epoch; all processes have to take part."""
    with suppress(AttributeError):
        results._get_cache(results[name], on_step=False)


def _takes_all(metric: Any) -> bool:
    """Whether computing a logged value or torchmetric needs all processes."""
    if metric.is_tensor:
        return metric.meta.sync.should and not metric.meta.sync.rank_zero_only
    return metric.value.sync_on_compute and metric.value._computed is None


def is_checkpoint(watcher: Any) -> bool:
    """Whether a monitor is a checkpoint; without the name it counts as an `EarlyStopping`.

    Then advice on when to look may be missing or name the wrong option.
    """
    return hasattr(watcher, "_save_on_train_epoch_end")


def looks_at_epoch_end(watcher: Any, option: str) -> bool | None:
    """Whether a monitor is set to look at epoch ends; None if it decides, or without the name.

    Without the name, advice on when to look may be missing or unnecessary.
    """
    return getattr(watcher, f"_{option}", None)


def replicas_of(trainer: Any) -> tuple[int, int]:
    """Return this process's index among those that read different data, and their number.

    Without the name all processes count, as they do unless they share the tensors of a network.
    """
    try:
        sampling = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
    except AttributeError:
        return trainer.global_rank, trainer.world_size
    return sampling["rank"], sampling["num_replicas"]


def trained_until(checkpoint: Mapping[str, Any]) -> tuple[float, int]:
    """Return the epochs completed and Lightning's logging step at the time of a checkpoint.

    Within the first epoch, whose length a checkpoint does not contain, no epochs are completed.

    Raises:
        Exception: If Lightning has other counters. Weights that are validated or tested then count
            as trained as far as the Trainer says, and one warning says so.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop")
    if loop is None:  # not written by Lightning
        return checkpoint.get("epoch", 0), checkpoint.get("global_step", 0)
    epochs = loop["epoch_progress"]["current"]["processed"]
    progress = loop["epoch_loop.batch_progress"]
    step = loop["epoch_loop.state_dict"].get("_batches_that_stepped", checkpoint["global_step"])
    batches, trained = progress["current"]["processed"], progress["total"]["processed"]
    if epochs == loop["epoch_progress"]["current"]["ready"] or batches == 0:
        return epochs, step
    if progress["is_last_batch"]:
        return epochs + 1, step
    return epochs + (batches * epochs / (trained - batches) if epochs else 0), step
