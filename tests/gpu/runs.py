"""Training runs from fixed seeds, and everything that they leave behind."""

import random

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tests.gpu.device import of_trainer, on_cuda
from tests.gpu.given import clusters

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "max_epochs": 2,
}


class Classifier(pl.LightningModule):
    """Records the loss and the states of the random generators at each step."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.steps = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.steps.append((loss.detach().clone(), generators()))
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Jittered(Dataset):
    """Samples with noise from the generators of torch, NumPy and Python at each read."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        noise = 0.01 * float(torch.randn(())) + 0.01 * np.random.rand() + 0.01 * random.random()
        return self.inputs[index] + noise, self.targets[index]


def vectors(classes=4, each=9):
    return Jittered(*clusters(classes, each, d=6))


def trainer(folder, callbacks=(), **options):
    options = {**QUIET, **of_trainer(), "default_root_dir": folder, **options}
    return pl.Trainer(callbacks=list(callbacks), **options)


def fit(folder, net, data, callbacks=(), wrap=None, workers=0, batch_size=8, **options):
    """Train from fixed seeds; return the Trainer and the module.

    Args:
        folder: Folder that the Trainer may write to.
        net: Function that makes the network.
        data: Training dataset.
        callbacks: Callbacks of the Trainer.
        wrap: Function that wraps the network before training, such as ``torch.compile``.
        workers: Number of workers of the loader; if positive, batches are pinned for a GPU.
        batch_size: Samples per training batch.
        options: Options of the Trainer.
    """
    torch.manual_seed(11)
    np.random.seed(12)
    random.seed(13)
    net = net()
    module = Classifier(wrap(net) if wrap else net)
    pinned = workers > 0 and on_cuda()
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=workers, pin_memory=pinned)
    run = trainer(folder, callbacks, **options)
    run.fit(module, loader)
    return run, module


def generators():
    """The states of all random generators that training may draw from."""
    _, key, *position = np.random.get_state()
    states = {"torch": torch.get_rng_state(), "numpy": (key.tobytes(), *position)}
    states["python"] = str(random.getstate())
    if on_cuda():
        of_devices = enumerate(torch.cuda.get_rng_state_all())
        states |= {f"cuda:{number}": state for number, state in of_devices}
    return states


def trace(run, module):
    """What training has left in the module, optimizers, scaler and generators."""
    scaler = getattr(run.precision_plugin, "scaler", None)
    return {
        "steps": module.steps,
        "weights": {name: p.detach() for name, p in module.named_parameters()},
        "gradients": {n: p.grad for n, p in module.named_parameters() if p.grad is not None},
        "buffers": dict(module.named_buffers()),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "scaler": None if scaler is None else scaler.state_dict(),
        "generators": generators(),
        "modes": {name: m.training for name, m in module.named_modules()},
    }
