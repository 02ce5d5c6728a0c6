"""A training as users start it, in a script of its own; it can be told to fail, to die, to go on.

The script takes a folder and the options of `train` for each of its fits, by name, as JSON.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from lightning_nc import Probe
from tests import nets


def fail():
    raise OSError("the disk is gone")


def interrupt():
    # shells let their background jobs ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


DEEDS = {
    "fail": fail,
    "interrupt": interrupt,
    "terminate": lambda: signal.raise_signal(signal.SIGTERM),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


class Fateful(nets.Blobs):
    """Data that do a deed when they are read for the third time after the fuse was lit."""

    def __init__(self):
        super().__init__(augment=False)
        # an object of a library, since those of a user are put back after a measurement
        self.fuse = argparse.Namespace(left=0, deed=None)

    def __getitem__(self, index):
        if self.fuse.left:
            self.fuse.left -= 1
            if not self.fuse.left:
                DEEDS[self.fuse.deed]()
        return super().__getitem__(index)


class Fate(Callback):
    """Does a deed in the middle of the measurement after epoch two, or in epoch three."""

    def __init__(self, data, deed, where="measurement", rank=0):
        self.data, self.deed, self.where, self.rank = data, deed, where, rank

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_rank != self.rank:
            return
        if self.where == "batch" and (trainer.current_epoch, batch_idx) == (2, 1):
            DEEDS[self.deed]()
        elif self.where == "measurement" and (trainer.current_epoch, batch_idx) == (1, 3):
            self.data.fuse.left, self.data.fuse.deed = 3, self.deed


class ResumableLoader(DataLoader):
    """A loader in fixed order that goes on within an epoch where a checkpoint was written."""

    read = 0

    def __iter__(self):
        start = self.read % len(self)
        for self.read, batch in enumerate(super().__iter__(), start=1):
            if self.read > start:
                yield batch

    def state_dict(self):
        return {"read": self.read}

    def load_state_dict(self, state):
        self.read = state["read"]


def network():
    """Without dropout: checkpoints do not keep the state of random generators."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Linear(6, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 9),
        nn.ReLU(),
        nn.Linear(9, 3),
    )


def train(
    folder, callbacks=(), fate=None, ckpt_path=None, checkpoint=None, batch_size=10, **options
):
    """Train for four epochs of four batches; the Trainer."""
    data = Fateful()
    callbacks = list(callbacks) + ([Fate(data, **fate)] if fate else [])
    if checkpoint is not None:
        callbacks.append(ModelCheckpoint(folder, **{"save_last": True, **checkpoint}))
        options["enable_checkpointing"] = True
    run = nets.trainer(folder, callbacks, **{"max_epochs": 4, **options})
    loader = ResumableLoader(data, batch_size)
    validation = DataLoader(nets.vectors(seed=2), 10)
    run.fit(nets.Classifier(network(), freeze=0), loader, validation, ckpt_path=ckpt_path)
    return run


def pair(**options):
    """One callback of each class, which share their passes."""
    return [kind(figures=False, **options) for kind in nets.CALLBACKS]


def main(folder, fits):
    for name, options in fits.items():
        measured = options.pop("measured", {})
        probe = Probe(wait_seconds=options.pop("wait_seconds", 60))
        callbacks = [] if measured is None else pair(probe=probe, **measured)
        if options.pop("csv", False):
            options["logger"] = CSVLogger(folder)
        if options.pop("before", False):  # so that callbacks have state to send to children
            train(folder, callbacks, max_epochs=1)
        run = train(folder, callbacks, **options)
        result = {
            "weights": run.lightning_module.state_dict(),
            "callbacks": {callback.family: callback.state_dict() for callback in callbacks},
            "metrics": dict(run.callback_metrics),
        }
        torch.save(result, Path(folder) / f"{name}-{run.global_rank}.pt")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
