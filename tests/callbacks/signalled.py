"""Runs that get a signal in a measurement; run in children by `test_signals`."""

import json
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.environments import SLURMEnvironment
from torch.utils.data import DataLoader

from lightning_nc import NeuralCollapse, Probe
from lightning_nc.measures.neural_collapse import CollapseMeasure
from tests import nets
from tests.callbacks.processes_of_lightning import join

WAIT = timedelta(seconds=5)  # of processes for each other, in collectives
EPOCH = 2  # after so many the signal comes, in the measurement or where it would be
BATCH = 4


class Preempted(Exception):
    """What the handler of a program may raise."""


def preempt(*_):
    raise Preempted


class Place:
    """Where a process waits until the test has sent it a signal, once it is armed."""

    def __init__(self, folder, rank):
        self.folder, self.armed = Path(folder), False
        self.here, self.sent = self.folder / f"here-{rank}", self.folder / "sent"
        self.state = SimpleNamespace(reads=0, reads_before=None)  # an object is not put back

    def come(self):
        if not self.armed or self.here.exists():
            return
        self.state.reads_before = self.state.reads
        self.here.touch()
        until = time.monotonic() + 60
        while not self.sent.exists():
            assert time.monotonic() < until, "no signal"
            time.sleep(0.01)


class Data(nets.Blobs):
    """Data whose reader may wait for the signal; workers leave their numbers."""

    def __init__(self, place, waits):
        super().__init__(augment=False)
        self.place, self.waits = place, waits

    def __getitem__(self, index):
        self.place.state.reads += 1
        if torch.utils.data.get_worker_info() is not None:
            (self.place.folder / f"worker-{os.getpid()}").touch()
        if self.waits:
            self.place.come()
        return super().__getitem__(index)


class Pausing(nets.Observer):
    """A layer that waits for the signal in evaluation."""

    place = None

    def forward(self, x):
        if not self.training and self.place is not None:
            self.place.come()
        return super().forward(x)


class Arm(Callback):
    """Arms the place in the chosen epoch; without a measurement, it waits after it by itself."""

    def __init__(self, place, waits):
        self.place, self.waits = place, waits

    def on_train_batch_end(self, trainer, *_):
        self.place.armed = trainer.current_epoch + 1 == EPOCH

    def on_train_epoch_end(self, trainer, pl_module):
        if self.place.armed and trainer.is_global_zero:
            torch.save(pl_module.state_dict(), self.place.folder / "epoch.pt")
        if self.waits:
            self.place.come()


def train(
    folder, where, rank=0, world=1, handler=None, workers=0, batch_norm="eval", environment=()
):
    """Train for three epochs; the measurement after the second waits for a signal somewhere.

    Args:
        folder: Where to write what has happened.
        where: Where in the measurement to wait; None to wait without a measurement.
        rank: Number of this process.
        world: Number of processes.
        handler: ``"raise"`` or ``"requeue"``: what the program does with the signal.
        workers: Number of workers of the probe.
        batch_norm: That of the probe.
        environment: Environment variables.
    """
    torch.set_num_threads(1)
    torch.multiprocessing.set_start_method("fork", force=True)  # as in a script, for the workers
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let their jobs ignore it
    place = Place(folder, rank)
    data = Data(place, where == "reading")
    probe = Probe(data, "own", batch_size=BATCH, num_workers=workers, batch_norm=batch_norm)
    measuring = NeuralCollapse(
        probe=probe, figures="all" if where == "a figure" else False, on_error="raise"
    )
    torch.manual_seed(4)
    net = nets.mlp()
    net[7] = Pausing()
    net[7].place = place if where == "the network" else None
    checkpoint = ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=True)
    callbacks = [Arm(place, where is None), *([measuring] if where else []), checkpoint]
    options = {"plugins": [SLURMEnvironment()]} if handler == "requeue" else {}
    if world > 1:
        join(rank, world)
        rendezvous = (Path(folder) / "rendezvous").as_uri()
        torch.distributed.init_process_group(
            "gloo", init_method=rendezvous, rank=rank, world_size=world, timeout=WAIT
        )
        options |= {"strategy": "ddp", "devices": world}
    if handler == "raise":
        signal.signal(signal.SIGTERM, preempt)
    run = nets.trainer(folder, callbacks, max_epochs=3, enable_checkpointing=True, **options)
    module, ended = nets.Classifier(net, freeze=0), None

    def figure():
        place.come()
        return Figure()

    try:
        with patch.object(CollapseMeasure, "draw", lambda *_: {"slow": figure}):
            run.fit(module, DataLoader(nets.vectors(), 10))
    except BaseException as error:
        ended = type(error).__name__
        raise
    finally:
        outcome = {
            "ended": ended,
            "epochs": [m.epochs_completed for m in measuring.history],
            "failures": measuring.failures,
            "reads after": place.state.reads - (place.state.reads_before or 0),
            "modes": len({each.training for each in net.modules()}),
            "hooks": sum(len(each._forward_hooks) for each in net.modules()),
        }
        (Path(folder) / f"outcome-{rank}.json").write_text(json.dumps(outcome))
