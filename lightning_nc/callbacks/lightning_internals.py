"""The names of Lightning that are not public, each behind one function.

Lightning may rename them at any time. Each function says what its names stand for and what is lost
without them; none of them may stop a run. `tests/callbacks/test_private_names.py` takes them away
one by one.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import torch


class Progress(NamedTuple):
    """How far training has come.

    Attributes:
        between_epochs: Whether no epoch has begun that is not complete.
        batches_ready: Batches of the current epoch that have begun.
        batches_processed: Batches of the current epoch that have been trained on.
        last_batch: Whether the current batch is the last of its epoch.
        counted: Whether the last batch that was trained on is in the step of loggers.
    """

    between_epochs: bool
    batches_ready: int
    batches_processed: int
    last_batch: bool
    counted: bool


def progress_of(trainer: Any) -> Progress:
    """The counters of the training loop.

    Without them it cannot be told when a measurement is due: none is taken, which is told once.
    """
    epochs = trainer.fit_loop.epoch_progress.current
    progress = trainer.fit_loop.epoch_loop.batch_progress
    batches = progress.current
    return Progress(
        between_epochs=epochs.completed == epochs.ready,
        batches_ready=batches.ready,
        batches_processed=batches.processed,
        last_batch=progress.is_last_batch,
        counted=batches.completed == batches.ready,
    )


def batches_that_stepped(trainer: Any) -> int:
    """The step under which Lightning logs: batches, not steps of optimizers.

    Without it values are logged under the steps of optimizers.
    """
    return getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step)


def monitored_metrics(trainer: Any) -> dict[str, torch.Tensor]:
    """What ``trainer.callback_metrics`` shows, without computing what others have logged.

    Reading the property would compute metrics of the user before they are complete, and
    communicate. Without the name, EarlyStopping and ModelCheckpoint find none of our values.
    """
    with suppress(AttributeError):
        return trainer._logger_connector._callback_metrics
    return {}


def loaders_of_loop(loop: Any) -> Any:
    """The loaders of a loop, as the user gave them; None if it has none yet.

    A loop that has not begun has a source instead, which may call code of the user. Without either
    name the probe finds no loader; the error says to give one.
    """
    with suppress(AttributeError):
        if loop._combined_loader is not None:
            return loop._combined_loader.iterables
        if loop._data_source.is_defined():
            loaders = loop._data_source.dataloader()
            return getattr(loaders, "iterables", loaders)  # of a CombinedLoader
    return None


def before_transfer(pl_module: Any) -> Callable[..., Any]:
    """``on_before_batch_transfer`` with what Lightning does around it.

    Without the name it is the public hook alone.
    """
    return getattr(pl_module, "_on_before_batch_transfer", pl_module.on_before_batch_transfer)


def epoch_results(trainer: Any) -> Any:
    """What the training epoch has logged so far; None without the name.

    Without it, or the names below, a process that computes metrics alone is one that does not come
    to a measurement.
    """
    with suppress(AttributeError):
        return trainer.fit_loop.epoch_loop._results
    return None


def pending_metrics(results: Any) -> list[str]:
    """Metrics of an epoch that no one has computed yet, and that take all processes, in order."""
    with suppress(AttributeError):
        return [
            name
            for name, metric in results.valid_items()
            if metric.meta.on_epoch and metric._computed is None and _takes_all(metric)
        ]
    return []


def compute_metric(results: Any, name: str) -> None:
    """Compute a metric of the epoch, which takes all processes."""
    with suppress(AttributeError):
        results._get_cache(results[name], on_step=False)


def _takes_all(metric: Any) -> bool:
    """Whether a value that was logged, or the torchmetric, is computed from all processes."""
    if metric.is_tensor:
        return metric.meta.sync.should and not metric.meta.sync.rank_zero_only
    return metric.value.sync_on_compute and metric.value._computed is None


def looks_at_epoch_end(watcher: Any, option: str) -> bool | None:
    """What a monitor was told to look at; None if it is to decide, or the name is gone.

    Without it advice on when to look may be missing or needless.
    """
    return getattr(watcher, f"_{option}", None)
