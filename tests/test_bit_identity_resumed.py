"""A run that goes on from a checkpoint is what it would have been without the callback."""

import functools
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


class PowerCut(Exception):
    pass


class Stopped:
    """Fails in the second of its epochs."""

    def training_step(self, batch, index):
        if self.current_epoch == 1 and index == 2:
            raise PowerCut
        return super().training_step(batch, index)


class SavedByHand:
    """Saves in mid-epoch."""

    def on_train_batch_end(self, *_):
        if self.trainer.global_step == 8:
            self.trainer.save_checkpoint(Path(self.trainer.default_root_dir) / "saved.ckpt")


def saved(**options):
    """Lightning's own checkpoints; the run goes on after the one that is used."""

    def make(folder):
        every = {"save_top_k": -1, "filename": "{step}", "enable_version_counter": False}
        return ModelCheckpoint(folder, auto_insert_metric_name=False, **every, **options)

    return make


class Checkpoint(NamedTuple):
    """Makes a callback that writes it; a class of modules; its name; steps left of three epochs."""

    make: Any
    kind: Any
    name: str
    steps_left: int


# epochs have six steps
CHECKPOINTS = {
    "at the end of an epoch": Checkpoint(saved(save_on_train_epoch_end=True), None, "6.ckpt", 12),
    "at the end of validation": Checkpoint(
        saved(save_on_train_epoch_end=False), None, "6.ckpt", 12
    ),
    "in mid-epoch": Checkpoint(saved(every_n_train_steps=4), None, "8.ckpt", 10),
    "on the last batch of an epoch": Checkpoint(saved(every_n_train_steps=6), None, "6.ckpt", 12),
    "by an exception": Checkpoint(OnExceptionCheckpoint, Stopped, "on_exception.ckpt", 10),
    "by hand": Checkpoint(None, SavedByHand, "saved.ckpt", 10),
}


def interrupted(folder, checkpoint, callbacks):
    """Train for two epochs, if nothing fails, and name the checkpoint."""
    make, kind, name, _ = CHECKPOINTS[checkpoint]
    saving = [make(folder)] if make else []
    with suppress(PowerCut):
        nets.train_and_trace(
            folder, [*callbacks, *saving], kind=kind, enable_checkpointing=bool(saving)
        )
    return folder / name


def resumed(folder, path, callbacks):
    return nets.train_and_trace(
        folder, callbacks, max_epochs=3, ckpt_path=path, val_check_interval=0.5
    )


@functools.cache
def untouched(checkpoint):
    """The same two runs without a callback."""
    with tempfile.TemporaryDirectory() as folder:
        return resumed(folder, interrupted(Path(folder), checkpoint, []), [])


@pytest.mark.parametrize(
    ("saver", "resumer", "when"),
    [
        (True, True, "train_epoch_end"),
        (True, True, "validation_end"),
        (True, False, "train_epoch_end"),
        (False, True, "train_epoch_end"),
    ],
    ids=["with it", "with it at validation ends", "without it", "with it for the first time"],
)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("callback_class", nets.CALLBACKS)
def test_resumed_training_is_bit_identical(
    callback_class, checkpoint, saver, resumer, when, tmp_path
):
    first, second = (callback_class(when=when, figures=False) for _ in range(2))
    path = interrupted(tmp_path, checkpoint, [first] * saver)
    trace = resumed(tmp_path, path, [second] * resumer)
    place = nets.difference(trace, untouched(checkpoint))
    assert place is None, f"{place} changed"
    left = CHECKPOINTS[checkpoint].steps_left
    # older Lightning repeats the batch in whose hook a checkpoint was written
    assert len(trace.steps) in (left, left + 1)
    if resumer:
        assert second.history[-1].epochs_completed == 3
        assert second.failures == 0
