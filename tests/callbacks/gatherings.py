"""Runs in which one process reads metrics, or communicates, where the others do not."""

import os
import sys
import tempfile
import time
import warnings
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
import torchmetrics
from pytorch_lightning.callbacks import Callback, RichProgressBar, TQDMProgressBar
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, LocalElasticity, NeuralCollapse, Probe
from tests import nets
from tests.callbacks.processes_of_lightning import join

PATIENCE = 1.0  # seconds, of processes that wait in vain


class Logging(nets.Classifier):
    """Logs what takes all processes to compute: tensors and a torchmetric."""

    def __init__(self):
        super().__init__(freeze=0)
        self.metric = torchmetrics.MeanMetric()

    def log_of(self, name, batch):
        loss = self.loss_of(batch)
        self.log(name, loss, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def training_step(self, batch, _):
        loss = self.log_of("synced", batch)
        self.metric.update(loss.detach())
        self.log("metric", self.metric, on_step=False, on_epoch=True)
        self.log("of process 0", loss, on_epoch=True, sync_dist=True, rank_zero_only=True)
        return loss

    def validation_step(self, batch, _):
        self.log_of("val_synced", batch)

    def test_step(self, batch, _):  # noqa: PT019
        self.log_of("test_synced", batch)


class Finishing(Logging):
    """Completes its metric when the epoch is over."""

    def on_train_epoch_end(self):
        self.metric.update(1000.0)


class Printing(Callback):
    """What users write: process 0 alone shows the metrics, wherever there are some."""

    def show(self, trainer, *_):
        if trainer.is_global_zero:
            assert len(str({**trainer.callback_metrics, **trainer.progress_bar_metrics})) > 0

    on_train_start = on_train_epoch_end = on_train_end = show
    on_validation_epoch_end = on_validation_end = on_test_epoch_end = on_test_end = show


class LoggingLate(Callback):
    """Logs at the end of the epoch what takes all processes to compute."""

    def on_train_epoch_end(self, trainer, pl_module):
        self.log("late", float(trainer.global_rank), sync_dist=True)


class Communicating(Callback):
    """Enters a collective of its own at the end of an epoch, on some processes here."""

    def __init__(self, rank):
        self.rank = rank

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.global_rank == self.rank:
            dist.barrier()


class Slow(Callback):
    """Keeps one process busy at the end of an epoch."""

    def __init__(self, rank, seconds):
        self.rank, self.seconds = rank, seconds

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.global_rank == self.rank and trainer.current_epoch == 0:
            time.sleep(self.seconds)


class SlowlyRead(nets.Blobs):
    """Data that some processes read slowly."""

    def __init__(self, seconds):
        super().__init__((40, 40, 40), augment=False)
        self.seconds = seconds

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return super().__getitem__(index)


def ours(**options):
    given = {"figures": False, "epochs": [0, 1, 2], "probe": Probe(nets.vectors(), "own")} | options
    return [kind(**given) for kind in (EquiSeparation, NeuralCollapse, LocalElasticity)]


def patient(**options):
    return NeuralCollapse(
        probe=Probe("train", wait_seconds=PATIENCE), figures=False, epochs=[0, 1, 2], **options
    )


# what stands in a Trainer's list of callbacks, ours among it
READERS = {
    "a bar before": lambda: [TQDMProgressBar(), *ours()],
    "a bar after": lambda: [*ours(), TQDMProgressBar()],
    "a bar between": lambda: [*ours()[:2], TQDMProgressBar(), ours()[2]],
    "a rich bar before": lambda: [RichProgressBar(), *ours()],
    "a rich bar after": lambda: [*ours(), RichProgressBar()],
    "prints before": lambda: [Printing(), *ours()],
    "prints after": lambda: [*ours(), Printing()],
    "logs late and prints before": lambda: [LoggingLate(), Printing(), TQDMProgressBar(), *ours()],
    "a bar before, at validation": lambda: [TQDMProgressBar(), *ours(when="validation_end")],
    "prints before, at validation": lambda: [Printing(), *ours(when="validation_end")],
    "prints after, at validation": lambda: [*ours(when="validation_end"), Printing()],
}

# who waits in vain for another process
ALONE = {
    "a collective of process 0": lambda: [Communicating(0), patient(), *map(Communicating, (1, 2))],
    "a collective of process 1": lambda: [Communicating(1), patient(), *map(Communicating, (0, 2))],
    "a process that is late": lambda: [Slow(1, 2.5 * PATIENCE), patient()],
    "a process that is slow": lambda: [Slow(0, 0.5 * PATIENCE), patient()],
}


def measured(callbacks):
    return [
        (type(c).__name__, m.stage, m.epochs_completed)
        for c in callbacks
        for m in getattr(c, "history", [])
    ]


def run(world, callbacks, kind=Logging, stages=("fit",)):
    """Train, validate, test; what there is to compare."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.manual_seed(5)
        module = kind()
        trainer = nets.trainer(
            folder,
            callbacks,
            strategy="ddp",
            devices=world,
            enable_progress_bar=any("Bar" in type(callback).__name__ for callback in callbacks),
        )
        loader = DataLoader(nets.vectors(), 5)
        trainer.fit(module, DataLoader(nets.vectors(), 5, shuffle=True), loader)
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if "synced" in name or name == "metric"
        }
        weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        for stage in stages[1:]:
            getattr(trainer, stage)(module, loader, verbose=False)
    return {
        "weights": weights,
        "measured": measured(trainer.callbacks),
        "metrics": metrics,
        "told": [str(w.message) for w in told if w.category is RuntimeWarning],
    }


def run_readers(rank, world):
    """Every case of `READERS`, and the run without any callback."""
    join(rank, world)
    results = {"alone": run(world, [])}
    for name, callbacks in READERS.items():
        results[name] = run(world, callbacks(), stages=("fit", "validate", "test"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "callbacks.yaml")
        file.write_text("- {class_path: NeuralCollapse, init_args: {figures: false}}")
        with patch.dict(os.environ, LIGHTNING_NC_CALLBACKS=str(file)):
            results["ours from a file"] = run(world, [TQDMProgressBar()])
    results["completed late"] = run(world, ours(), Finishing)
    results["completed late, alone"] = run(world, [], Finishing)
    return results


def run_without_meeting(rank, world):
    """A bar on process 0, and processes that do not meet before they communicate."""
    join(rank, world)
    with patch("lightning_nc.callbacks.shared_pass.meeting_place", lambda: None):
        run(world, [TQDMProgressBar(), *ours()])


def run_with_short_timeout(rank, world, folder):
    """A process in a collective of its own, which ends the run if the others wait too long."""
    join(rank, world)
    dist.destroy_process_group()
    place, timeout = Path(folder, "group").as_uri(), timedelta(seconds=8)
    dist.init_process_group("gloo", place, timeout, world_size=world, rank=rank)
    callback = NeuralCollapse(figures=False, epochs=[0, 1, 2])  # waits for a minute
    return run(world, [Communicating(0), callback, Communicating(1)])


def run_with_slow_reader(rank, world, folder):
    """A process that takes longer to read its part of the probe than the timeout of the group."""
    join(rank, world)
    dist.destroy_process_group()
    place, timeout = Path(folder, "group").as_uri(), timedelta(seconds=3)
    dist.init_process_group("gloo", place, timeout, world_size=world, rank=rank)
    probe = Probe(SlowlyRead(0.1 * (rank == 1)), "slow", batch_size=3)
    return run(world, [NeuralCollapse(probe=probe, epochs=[1], figures=False)])


def run_alone(rank, world):
    """Every case of `ALONE`, the run without, and one in which Lightning's private names are gone.

    Then a bar that computes metrics on process 0 is like any process that communicates alone.
    """
    join(rank, world)
    results = {"alone": run(world, [])}
    for name, callbacks in ALONE.items():
        results[name] = run(world, callbacks())

    def renamed(loop, name):
        if name == "_results" and "lightning_internals" in sys._getframe(1).f_code.co_filename:
            raise AttributeError(name)
        return object.__getattribute__(loop, name)

    with patch.object(_TrainingEpochLoop, "__getattribute__", renamed):
        results["names gone"] = run(world, [TQDMProgressBar(), patient()])
    return results


def run_unequal(rank, world):
    """Epochs of more batches on process 1 than on process 0, until a number of steps."""
    join(rank, world)
    own = Probe(nets.vectors(), "own", wait_seconds=PATIENCE)
    results = []
    for callbacks in ([], [NeuralCollapse(probe=own, when="validation_end", figures=False)]):
        torch.manual_seed(5)
        module = nets.Classifier(freeze=0)
        options = {"strategy": "ddp", "devices": world, "use_distributed_sampler": False}
        with tempfile.TemporaryDirectory() as folder:
            trainer = nets.trainer(
                folder, callbacks, max_steps=6, max_epochs=-1, val_check_interval=2, **options
            )
            data = nets.vectors((12 + 6 * rank, 14, 14))  # 8 and 10 batches of 5
            trainer.fit(module, DataLoader(data, 5), DataLoader(nets.vectors(), 10))
        results.append((measured(callbacks), module.state_dict()))
    return results
