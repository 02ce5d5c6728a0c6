"""The feedforward networks of the law of equi-separation, trained and measured as in the paper.

Linear-BatchNorm-ReLU modules of width 100 and a linear classifier learn 1000 images of 10x10 pixels
by cross-entropy with batches of 128 for 600 epochs; the learning rate is divided by 10 after 200
and by 100 after 400 of them, and weight decay is 5e-4. D is measured on the training set with
BatchNorm using the statistics of each batch.

Source:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytorch_lightning as pl
import torch
from example_setup import train_quietly
from fashion_mnist import FOLDER, subset, whole_batches
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from lightning_nc import EquiSeparation, Measurement, NeuralCollapse, Probe
from lightning_nc.functional import separation_law

EPOCHS, MILESTONES = 600, (200, 400)
LEARNING_RATES = {
    "sgd": {4: 0.3, 8: 0.03, 20: 0.01},
    "momentum": {4: 0.3, 8: 0.01, 20: 0.001},
    "adam": {4: 3e-3, 8: 1e-3, 20: 3e-4},
}
TITLES = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam"}


@dataclass(frozen=True)
class Setting:
    """A network and its training.

    Attributes:
        layers: Hidden modules plus the classifier: 4, 8 or 20.
        optimizer: A key of `LEARNING_RATES`, which has the rate for each number of layers.
        nonlinear: Whether modules end in a ReLU.
        batch_norm: Whether they have BatchNorm.
        epochs: Length of the training; the schedule of the learning rate scales with it.
        seed: Seed of images, initialisation and order of batches.
    """

    layers: int = 8
    optimizer: str = "adam"
    nonlinear: bool = True
    batch_norm: bool = True
    epochs: int = EPOCHS
    seed: int = 0

    @property
    def milestones(self) -> list[int]:
        """Epochs after which the learning rate is divided by 10."""
        return [round(epoch * self.epochs / EPOCHS) for epoch in MILESTONES]


class HiddenLayer(nn.Sequential):
    """Linear, BatchNorm, ReLU: the module that the law counts as one layer.

    It has a class of its own, so that `EquiSeparation` finds its instances as blocks.
    """

    def __init__(self, width_in: int, width: int, setting: Setting) -> None:
        super().__init__(
            nn.Linear(width_in, width),
            nn.BatchNorm1d(width) if setting.batch_norm else nn.Identity(),
            nn.ReLU() if setting.nonlinear else nn.Identity(),
        )


class FeedForward(pl.LightningModule):
    """Hidden layers and a linear classifier."""

    def __init__(self, setting: Setting, pixels: int = 100, width: int = 100) -> None:
        super().__init__()
        self.setting = setting
        widths = [pixels] + [width] * (setting.layers - 1)
        hidden = [HiddenLayer(before, after, setting) for before, after in pairwise(widths)]
        self.hidden = nn.Sequential(nn.Flatten(), *hidden)
        self.classifier = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.classifier(self.hidden(images))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the cross-entropy."""
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[MultiStepLR]]:
        """Divide the learning rate by 10 after one third and after two thirds of the epochs."""
        rate = LEARNING_RATES[self.setting.optimizer][self.setting.layers]
        optimizer: torch.optim.Optimizer
        if self.setting.optimizer == "adam":
            optimizer = torch.optim.Adam(self.parameters(), rate, weight_decay=5e-4)
        else:
            momentum = 0.9 if self.setting.optimizer == "momentum" else 0.0
            optimizer = torch.optim.SGD(self.parameters(), rate, momentum, weight_decay=5e-4)
        return [optimizer], [MultiStepLR(optimizer, self.setting.milestones, gamma=0.1)]


def train(
    setting: Setting,
    epochs: Sequence[int],
    batch_norm: str = "batch",
    folder: Path = FOLDER,
    of_test_data: bool = False,
) -> list[dict[str, float | list[float]]]:
    """Train a network, and measure it at some epochs.

    Args:
        setting: The network and its training.
        epochs: Epochs to measure after, if there are as many; 0 is before training.
        batch_norm: Statistics that BatchNorm uses in measurements, ``"batch"`` or ``"eval"``.
        folder: Folder of FashionMNIST.
        of_test_data: Whether to measure 1000 images of the test set, too.

    Returns:
        For each measurement ``epoch``, the values of the law, ``nc1``, ``accuracy``, and ``D``, the
        fuzziness of the input and after every hidden layer; ``class_r``, r of each class; of test
        data, ``test_r`` and ``test_total``.
    """
    pl.seed_everything(setting.seed, verbose=False)
    dataset = subset("train", per_class=100, size=10, seed=setting.seed, folder=folder)
    probe = Probe(dataset, "probe", samples_per_class=None, batch_norm=batch_norm, batch_size=100)
    due = [epoch for epoch in epochs if epoch <= setting.epochs]
    options = {"probe": probe, "epochs": due, "figures": False, "on_error": "raise"}
    law, collapse = EquiSeparation(**options), NeuralCollapse(**options)
    used = [law, collapse]
    if of_test_data:
        test_data = subset("test", per_class=100, size=10, seed=setting.seed, folder=folder)
        of_test = replace(probe, source=test_data, name="test")
        used.append(EquiSeparation(**options | {"probe": of_test}))
    train_quietly(FeedForward(setting), whole_batches(dataset, 128), setting.epochs, used)
    return [
        of_epoch(*measurements) for measurements in zip(*(c.history for c in used), strict=True)
    ]


def of_epoch(
    law: Measurement, collapse: Measurement, test: Measurement | None = None
) -> dict[str, float | list[float]]:
    """What `train` returns of one epoch, from the measurements of its callbacks."""
    kept: dict[str, float | list[float]] = {"epoch": law.epochs_completed}
    kept |= {key: law.values[f"separation/probe/{key}"] for key in ("pearson_r", "rho", "total")}
    kept |= {key: collapse.values[f"nc/probe/{key}"] for key in ("nc1", "accuracy")}
    kept["D"] = law.arrays["fuzziness"].tolist()
    of_classes = law.arrays["class_fuzziness"].mT
    kept["class_r"] = [float(separation_law(D).pearson_r) for D in of_classes]
    if test is not None:
        kept["test_r"] = test.values["separation/test/pearson_r"]
        kept["test_total"] = test.values["separation/test/total"]
    return kept
