"""The cost of gradients and callbacks, against training steps and epochs."""

import tempfile
import time
from functools import partial

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from lightning_nc import NeuralCollapse, functional
from lightning_nc.callbacks.equi_separation import EquiSeparation
from lightning_nc.callbacks.local_elasticity import LocalElasticity
from lightning_nc.callbacks.minority_collapse import MinorityCollapse
from tests.gpu import subjects
from tests.gpu.device import device, finish
from tests.gpu.runs import trainer
from tests.gpu.timing import seconds_and_peak


def gradients(rows, subject, samples):
    """Time the tangent kernel against one forward and backward pass of the same samples."""

    def compared():
        torch.manual_seed(0)
        model = subject.build().to(device()).eval()
        numbers = torch.arange(samples, device=device())
        labels = numbers % subject.classes
        x = subject.make(numbers, labels)

        def forward_backward():
            nn.functional.cross_entropy(model(x), labels).backward()
            model.zero_grad()

        forward_backward()
        base, base_peak = seconds_and_peak(forward_backward, repeats=5)
        taken, peak = seconds_and_peak(partial(functional.gradient_kernel, model, x))
        found = {
            "seconds": taken,
            "by forward + backward": taken / base,
            "by forward + backward, per output": taken / base / subject.classes,
        }
        return found if peak is None else {**found, "peak memory, MB": peak, "beside": base_peak}

    rows.add("gradients", subject.name, f"gradient_kernel of {samples} samples", compared)


class Trained(LightningModule):
    """A subject under a Trainer; its inputs are made on the device of the batch."""

    def __init__(self, subject):
        super().__init__()
        self.subject = subject
        self.net = subject.build()

    def forward(self, x):
        return self.net(x)

    def on_after_batch_transfer(self, batch, _):
        return self.subject.unpack(batch)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


class Watch(Callback):
    """Times epochs, without what callbacks do at the end of each."""

    def __init__(self):
        self.started, self.epochs = None, []

    def on_train_epoch_start(self, trainer, pl_module):
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module):
        finish()
        self.epochs.append(time.perf_counter() - self.started)


def under_a_trainer(rows, subject, batches):
    """Compare the cost that callbacks report, with default settings, with an epoch."""
    used = {
        "EquiSeparation, NeuralCollapse, MinorityCollapse": [
            EquiSeparation(figures=False),
            NeuralCollapse(figures=False),
            MinorityCollapse(minority=[2, 3], figures=False),
        ],
        "LocalElasticity": [LocalElasticity(figures=False, epochs=[2])],
    }

    def train(callbacks):
        watch = Watch()
        data = subjects.Numbers(subject.epoch, subject.classes)
        loader = DataLoader(data, subject.batch, shuffle=True, collate_fn=subjects.as_it_is)
        options = {"limit_train_batches": batches, "precision": "bf16-mixed"}
        with tempfile.TemporaryDirectory() as folder:
            trainer(folder, [watch, *callbacks], **options).fit(Trained(subject), loader)
        epoch = watch.epochs[-1] * subject.epoch / (subject.batch * batches)
        taken = callbacks[0].history[-1].seconds
        return {"seconds": taken, "epoch, s": epoch, "share of an epoch, %": 100 * taken / epoch}

    for name, callbacks in used.items():
        rows.add("trainer", subject.name, name, partial(train, callbacks))
