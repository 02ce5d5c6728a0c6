"""What EarlyStopping and ModelCheckpoint are told, and what their users should know."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lightning_nc.callbacks.processes import tell

if TYPE_CHECKING:
    from lightning_nc.callbacks.geometry_callback import GeometryCallback


def monitor(trainer: Any, values: Mapping[str, float]) -> None:
    """Give finite values to the Trainer's monitors: EarlyStopping stops at a NaN."""
    finite = {key: value for key, value in values.items() if math.isfinite(value)}
    monitored = {k: torch.tensor(v, dtype=torch.float64) for k, v in finite.items()}
    _monitored(trainer).update(monitored)


def advise_at_setup(trainer: Any, callback: "GeometryCallback") -> None:
    """Say so if a monitor would look for a value before there can be one, or at an old one."""
    epochs, when = callback.schedule.epochs, callback.schedule.when
    name = type(callback).__name__
    for watcher, key in _watchers(trainer, callback):
        kind = type(watcher).__name__
        looks_after_validation = _looks_after_validation(trainer, watcher)
        if callback.probe.source == "test":
            advice = f"but trainer.test() alone measures '{callback.probe.key}': monitor another."
        elif epochs is not None and not {0, 1} & set(epochs) and _is_strict(watcher):
            # a value from before training is there whenever a monitor looks
            advice = (
                f"of which there is no value before epoch {min(epochs, default=math.inf):g}: add 0 "
                f"to {name}(epochs=...){_or_not_strict(watcher)}."
            )
        elif looks_after_validation and when == "validation_end":
            places = trainer.callbacks.index(watcher), trainer.callbacks.index(callback)
            if places[0] > places[1]:
                continue
            advice = (
                f"and looks before {name} measures, at the value of the validation before: list it "
                f"after {name} in Trainer(callbacks=...)."
            )
        elif looks_after_validation:
            option = _epoch_end_option(watcher)
            advice = (
                "and looks at the end of validation, before that epoch is measured: it would see "
                f'the value of an earlier one. Set {kind}({option}=True), or {name}(when="'
                'validation_end").'
            )
        else:
            continue
        if trainer.is_global_zero:
            tell(trainer, f"{kind} monitors '{key}', {advice}")


def advise_without_value(trainer: Any, callbacks: Sequence["GeometryCallback"]) -> None:
    """Say so, once, if a monitor is about to look for what no measurement has given yet."""
    has_value = _monitored(trainer)
    for callback in callbacks:
        for watcher, key in _watchers(trainer, callback):
            if key in has_value or key in callback.told or not _is_strict(watcher):
                continue
            callback.told.add(key)
            if trainer.is_global_zero:
                tell(
                    trainer,
                    f"{type(watcher).__name__} monitors '{key}', of which there is no finite value "
                    "yet; without one it can stop the run with an error: monitor another key"
                    f"{_or_not_strict(watcher)}.",
                )


def _monitored(trainer: Any) -> dict[str, torch.Tensor]:
    """What ``trainer.callback_metrics`` shows, without computing what others have logged.

    Reading the property would compute their metrics before they are complete, and communicate.
    """
    return trainer._logger_connector._callback_metrics


def _watchers(trainer: Any, callback: "GeometryCallback") -> Iterator[tuple[Any, str]]:
    """The callbacks of a Trainer that monitor keys of ours, and the keys."""
    ours = callback.prefix(), callback.prefix(callback.family + "_layers")
    for watcher in trainer.callbacks:
        try:
            key = getattr(watcher, "monitor", None)
        except Exception:
            continue  # a property of somebody's callback
        if isinstance(key, str) and key.startswith(ours):
            yield watcher, key


def _is_strict(watcher: Any) -> bool:
    """Whether a key without a value is an error to a monitor; some have no say in it."""
    return bool(getattr(watcher, "strict", True))


def _or_not_strict(watcher: Any) -> str:
    kind = type(watcher).__name__
    return f", or set {kind}(strict=False)" if hasattr(watcher, "strict") else ""


def _epoch_end_option(watcher: Any) -> str:
    of_checkpoints = hasattr(watcher, "_save_on_train_epoch_end")
    return "save_on_train_epoch_end" if of_checkpoints else "check_on_train_epoch_end"


def _looks_after_validation(trainer: Any, watcher: Any) -> bool:
    """Whether a monitor looks at the end of validation rather than of training epochs."""
    chosen = getattr(watcher, "_" + _epoch_end_option(watcher), None)
    if chosen is not None:
        return not chosen
    if trainer.check_val_every_n_epoch != 1:
        return True
    # with validation by the clock, the interval in batches does not exist
    within_epochs = getattr(trainer, "val_check_interval", None) != 1.0
    # an EarlyStopping does not mind that there is no validation, and never looks
    is_checkpoint = hasattr(watcher, "_save_on_train_epoch_end")
    return within_epochs and (trainer.enable_validation or not is_checkpoint)
