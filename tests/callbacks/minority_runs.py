"""Imbalanced trainings under `MinorityCollapse`, and what it has counted."""

import math

import torch
from pytorch_lightning import Callback
from torch.utils.data import DataLoader, WeightedRandomSampler

from lightning_nc import Probe
from tests import nets
from tests.callbacks.runs import mixed

COUNTS = (40, 40, 10, 10)
RARE = (2, 3)
OWN_PROBE = Probe(mixed((9, 8, 7, 6), seed=3), "own")


class Counting(Callback):
    """Counts the labels of training batches itself, epoch by epoch."""

    def __init__(self, K=4):
        self.K, self.epochs = K, []

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([0] * self.K)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        labels = batch["y"] if isinstance(batch, dict) else batch[1]
        for y in labels.flatten().tolist():
            self.epochs[-1][int(y)] += 1


def run(root, callbacks, loader=None, module=None, **options):
    """Train on a loader, without validation unless asked for."""
    torch.manual_seed(5)
    loader = DataLoader(mixed(COUNTS), 10, shuffle=True) if loader is None else loader
    module = network() if module is None else module
    trainer = nets.trainer(root, callbacks, **({"limit_val_batches": 0} | options))
    trainer.fit(module, loader, DataLoader(mixed((9, 9, 9, 9), seed=2), 10))
    return trainer


def told(root, callbacks, *args, **options):
    """What is warned of while a network trains."""
    with nets.our_warnings() as caught:
        run(root, callbacks, *args, **options)
    return caught


def counted(callback):
    """Training samples per class, as of each measurement; None where they are not known."""
    of_each = [m.arrays["class_counts"] for m in callback.history]
    return [None if n.isnan().all() else n.tolist() for n in of_each]


def last_values(callback):
    return {
        k.removeprefix(callback.record.prefix): v for k, v in callback.history[-1].values.items()
    }


def undefined(callback):
    return {name for name, value in last_values(callback).items() if math.isnan(value)}


def oversampling(data, size=100):
    labels = data.tensors[1]
    return WeightedRandomSampler((1 / labels.bincount())[labels], size)


def network():
    """A module for four classes."""
    return nets.Classifier(nets.mlp(K=4), freeze=0)
