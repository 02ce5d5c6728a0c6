"""Runs in which a network, or the size of its inputs, changes between two measurements."""

import tempfile
import warnings

import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import EquiSeparation, NeuralCollapse, Probe, measure
from tests import nets
from tests.callbacks.processes_of_lightning import join


class Block(nn.Module):
    def __init__(self, width, wider):
        super().__init__()
        self.conv = nn.Conv1d(width, wider, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.conv(x))


class Signals(nn.Module):
    """A network for signals of any length."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(1, 4), Block(4, 4), Block(4, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.blocks(x).mean(2))


def grow(net):
    net.blocks.append(Block(4, 4))


def shrink(net):
    del net.blocks[2]


def widen(net):
    net.blocks[1], net.blocks[2] = Block(4, 7), Block(7, 4)


CHANGES = {"grows": grow, "shrinks": shrink, "widens": widen, "longer inputs": None}


def signals(length):
    inputs, labels = nets.vectors(d=length).tensors
    return TensorDataset(inputs.unsqueeze(1), labels)


class Changing(nets.Classifier):
    """Changes at the beginning of the second epoch."""

    def __init__(self, change):
        torch.manual_seed(5)
        super().__init__(Signals(), freeze=0)
        self.change = change
        self.net.blocks.requires_grad_(False)  # DDP would wait for parameters that are gone

    def train_dataloader(self):
        longer = self.change is None and self.trainer.current_epoch > 0
        return DataLoader(signals(9 if longer else 6), 10, shuffle=True)

    def on_train_epoch_start(self):
        if self.trainer.current_epoch == 1 and self.change is not None:
            torch.manual_seed(6)
            self.change(self.net)
            self.net.blocks.requires_grad_(False)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.head.parameters(), lr=0.1)


class Comparing(Callback):
    """Measures what there is after each epoch, in this process alone."""

    def __init__(self):
        self.values = []

    def on_train_epoch_end(self, trainer, pl_module):
        probe = Probe(trainer.train_dataloader, "train")
        self.values.append(measure(pl_module, probe, progress=False).values)


def measured(change, world):
    """For each epoch what callbacks have logged, and what a network measured alone has."""
    comparing, callbacks = Comparing(), [EquiSeparation(figures=False), NeuralCollapse()]
    strategy = {"strategy": "ddp", "devices": world} if world > 1 else {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Do not compare values across this change")
        warnings.simplefilter("ignore", UserWarning)
        trainer = nets.trainer(
            folder,
            [*callbacks, comparing],
            max_epochs=3,
            reload_dataloaders_every_n_epochs=1,
            limit_val_batches=0,
            **strategy,
        )
        trainer.fit(Changing(change))
    of_each = [[m.values for m in callback.history[1:]] for callback in callbacks]
    logged = [{**first, **second} for first, second in zip(*of_each, strict=True)]
    return logged, comparing.values


def measure_all(rank, world):
    join(rank, world)
    return {name: measured(change, world) for name, change in CHANGES.items()}
