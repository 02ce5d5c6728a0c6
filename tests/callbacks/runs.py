"""Trainings with and without callbacks, and what there is to compare."""

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import Probe, measure
from tests import nets


def quantities(callback):
    return [
        {key: str(v) for key, v in m.values.items() if not key.endswith("seconds")}
        for m in callback.history
    ]


def epochs(callback):
    return [m.epochs_completed for m in callback.history]


def mixed(counts=(12, 9, 9), seed=1):
    """Separated classes in random order, so that a few batches have all of them."""
    data = nets.vectors(counts, seed=seed)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return TensorDataset(*data[order])


def loaders(data=None, **options):
    return {
        "train_dataloaders": DataLoader(data or mixed(), 10, shuffle=True),
        "val_dataloaders": DataLoader(mixed(seed=2), 10),
    } | options


def train(root, callbacks=(), module=None, data=None, **options):
    """Train from fixed seeds; the Trainer, and what training leaves in the module."""
    torch.manual_seed(5)
    module = module() if module else nets.Classifier(freeze=0)
    run = nets.trainer(root, callbacks, **options)
    run.fit(module, **(loaders() if data is None else data()))
    return run, (module.state_dict(), module.steps)


def assert_untouched(root, callback, others=list, **options):
    """Train with and without a callback next to others; the Trainers of both runs."""
    without, plain = train(root, others(), **options)
    run, trace = train(root, [callback, *others()], **options)
    assert nets.same(trace, plain)
    return run, without


class Comparing(Callback):
    """Measures on data of its own after each epoch, when the callbacks have."""

    def __init__(self, data):
        self.data, self.values = data, []

    def on_train_epoch_end(self, trainer, pl_module):
        source = DataLoader(self.data(), 10)
        self.values.append(measure(pl_module, Probe(source, "train")).values)

    def assert_same_as(self, history):
        for values, m in zip(self.values, history, strict=True):
            shared = sorted(values.keys() & m.values.keys())
            assert len(shared) >= 5
            mine, theirs = [m.values[k] for k in shared], [values[k] for k in shared]
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6, nan_ok=True), shared
