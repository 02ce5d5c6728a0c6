"""Values for EarlyStopping and ModelCheckpoint, and advice on their options."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from lightning_nc.callbacks.lightning_internals import (
    is_checkpoint,
    looks_at_epoch_end,
    monitored_metrics,
)
from lightning_nc.callbacks.messages import tell, tell_once
from lightning_nc.callbacks.record import Record
from lightning_nc.callbacks.schedule import When
from lightning_nc.guards.precision import with_float64


def give_to_monitors(trainer: Any, values: Mapping[str, float]) -> None:
    """Pass finite values to the Trainer's monitors; EarlyStopping would stop at a NaN.

    What ModelCheckpoint monitors becomes part of checkpoints. In float64, a device without it could
    not load them.
    """
    device = trainer.strategy.root_device
    dtype = torch.float64 if with_float64(device) == device else torch.float32
    finite = {key: value for key, value in values.items() if math.isfinite(value)}
    monitored_metrics(trainer).update({k: torch.tensor(v, dtype=dtype) for k, v in finite.items()})


def advise_at_setup(trainer: Any, callback: Any) -> None:
    """Warn if a monitor would look for a value before it can exist, or at an old one.

    Args:
        trainer: The Trainer.
        callback: The callback whose values are monitored.
    """
    for watcher, key in _watchers(trainer, callback.record):
        advice = _advice(trainer, callback, watcher)
        if advice:
            tell(trainer, f"{type(watcher).__name__} monitors '{key}', {advice}")


def _advice(trainer: Any, callback: Any, watcher: Any) -> str:
    """What is wrong with when a monitor looks, and what to do; empty if nothing is."""
    record: Record = callback.record
    epochs, name = record.schedule.epochs, record.name
    if record.probe.source == "test":
        return f"but only trainer.test() measures '{record.probe.key}'. Monitor another key."
    if epochs is not None and not {0, 1} & set(epochs) and _is_strict(watcher):
        # a value from before training exists whenever a monitor looks
        until = f"before epoch {min(epochs):g}" if epochs else "at any epoch"
        return (
            f"which has no value {until}. Add 0 to the epochs of {name}{_or_not_strict(watcher)}."
        )
    looks, measures = _looks_at(trainer, watcher), record.schedule.when
    if looks == "validation_end" and measures == "train_epoch_end":
        return (
            "but looks at the end of validation, before that epoch is measured: it would see the "
            f"value of an earlier epoch. {_how_to_see_it(watcher, name)}"
        )
    if looks != measures or (looks == "train_epoch_end" and _is_called_last(watcher)):
        return ""
    if trainer.callbacks.index(watcher) > trainer.callbacks.index(callback):
        return ""
    previous = "validation" if looks == "validation_end" else "epoch"
    return (
        f"but looks before {name} measures, at the value of the previous {previous}. To see the "
        f"new value, list it after {name} in Trainer(callbacks=...)."
    )


def _how_to_see_it(watcher: Any, name: str) -> str:
    """How a monitor that looks at the end of validation sees the value of that epoch."""
    kind, in_time = type(watcher).__name__, f'give {name} when="validation_end"'
    if _is_called_last(watcher):
        return f"Set {kind}({_epoch_end_option(watcher)}=True), or {in_time}."
    return f"To see the new value, {in_time}, and list {kind} after it."


def advise_without_value(trainer: Any, records: Sequence[Record]) -> None:
    """Warn once if a monitor is about to look for a value that does not exist yet."""
    has_value = monitored_metrics(trainer)
    for record in records:
        for watcher, key in _watchers(trainer, record):
            if key not in has_value and _is_strict(watcher):
                tell_once(
                    trainer,
                    record.told,
                    key,
                    f"{type(watcher).__name__} monitors '{key}', which has no finite value yet; "
                    "this can stop the run with an error. Monitor another key"
                    f"{_or_not_strict(watcher)}.",
                )


def _watchers(trainer: Any, record: Record) -> Iterator[tuple[Any, str]]:
    """Yield the callbacks of a Trainer that monitor keys of a record, with these keys."""
    family, probe = record.measure.family, record.probe.key
    ours = f"{family}/{probe}/", f"{family}_layers/{probe}/"
    for watcher in trainer.callbacks:
        try:
            key = getattr(watcher, "monitor", None)
        except Exception:
            continue  # in user code, `monitor` may be a property that fails
        if isinstance(key, str) and key.startswith(ours):
            yield watcher, key


def _is_strict(watcher: Any) -> bool:
    """Whether a monitor treats a missing value as an error; not all have this option."""
    return bool(getattr(watcher, "strict", True))


def _or_not_strict(watcher: Any) -> str:
    kind = type(watcher).__name__
    return f", or set {kind}(strict=False)" if hasattr(watcher, "strict") else ""


def _epoch_end_option(watcher: Any) -> str:
    return f"{'save' if is_checkpoint(watcher) else 'check'}_on_train_epoch_end"


def _looks_at(trainer: Any, watcher: Any) -> When | None:
    """When a monitor looks; None if it never does, or if it cannot be told."""
    if _is_called_last(watcher):
        return "validation_end" if _looks_after_validation(trainer, watcher) else "train_epoch_end"
    # one of another library, such as one that prunes trials, looks in the hook that it has
    if _has_hook(watcher, "on_train_epoch_end"):
        return "train_epoch_end"
    if _has_hook(watcher, "on_validation_end") and trainer.enable_validation:
        return "validation_end"
    return None


def _is_called_last(watcher: Any) -> bool:
    """Whether Lightning calls a monitor after all other callbacks when an epoch ends."""
    return bool({"EarlyStopping", "Checkpoint"} & {kind.__name__ for kind in type(watcher).__mro__})


def _has_hook(watcher: Any, name: str) -> bool:
    owner = next(kind for kind in type(watcher).__mro__ if name in vars(kind))
    return owner.__name__ != "Callback"


def _looks_after_validation(trainer: Any, watcher: Any) -> bool:
    """Whether a monitor of Lightning looks at the end of validation, not of training epochs."""
    chosen = looks_at_epoch_end(watcher, _epoch_end_option(watcher))
    if chosen is not None:
        return not chosen
    if trainer.check_val_every_n_epoch != 1:
        return True
    # with validation by the clock, the interval in batches does not exist
    within_epochs = getattr(trainer, "val_check_interval", None) != 1.0
    # EarlyStopping ignores whether there is validation; without any, it never looks
    return within_epochs and (trainer.enable_validation or not is_checkpoint(watcher))
