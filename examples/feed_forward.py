"""The feedforward networks of the law of equi-separation, trained and measured as in the paper.

Linear-BatchNorm-ReLU modules of width 100 and a linear classifier learn 1000 images of 10x10 pixels
by cross-entropy with batches of 128 for 600 epochs; the learning rate is divided by 10 after 200
and by 100 after 400 of them, and weight decay is 5e-4. D is measured on the training set with
BatchNorm using the statistics of each batch. A `Setting` may say otherwise.

Source:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from example_setup import CrossEntropyModule, thirds_of, train_quietly
from fashion_mnist import FOLDER, choose, whole_batches
from image_sets import test_images, training_images
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import Subset, TensorDataset

from lightning_nc import EquiSeparation, Measurement, NeuralCollapse, Probe
from lightning_nc.functional import separation_law

EPOCHS = 600
LEARNING_RATES = {
    "sgd": {4: 0.3, 8: 0.03, 20: 0.01},
    "momentum": {4: 0.3, 8: 0.01, 20: 0.001},
    "adam": {4: 3e-3, 8: 1e-3, 20: 3e-4},
}
TITLES = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam"}
ALONE = 1.5  # times as many epochs as later train all have those at the bottom to themselves


@dataclass(frozen=True)
class Setting:
    """A network and its training.

    Attributes:
        layers: Hidden modules plus the classifier.
        optimizer: A key of `LEARNING_RATES`.
        nonlinear: Whether modules end in a ReLU.
        batch_norm: Whether they have BatchNorm.
        epochs: Length of the training; the schedule of the learning rate scales with it.
        seed: Seed of images, initialisation and order of batches.
        width: Width of all hidden modules, or of each.
        learning_rate: Learning rate at the start; None for that of `LEARNING_RATES`.
        data: One of `image_sets.DATA`.
        per_class: Training images of every class, or of each.
        bottom_first: Hidden modules at the bottom that are trained by themselves, at a constant
            learning rate and for half as long again; the others follow, with those fixed. 0 trains
            all together.
    """

    layers: int = 8
    optimizer: str = "adam"
    nonlinear: bool = True
    batch_norm: bool = True
    epochs: int = EPOCHS
    seed: int = 0
    width: int | tuple[int, ...] = 100
    learning_rate: float | None = None
    data: str = "FashionMNIST"
    per_class: int | tuple[int, ...] = 100
    bottom_first: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each hidden module."""
        hidden = self.layers - 1
        return (self.width,) * hidden if isinstance(self.width, int) else self.width

    @property
    def rate(self) -> float:
        """The learning rate at the start.

        Where `LEARNING_RATES` has none for this number of layers, it is on the line between its
        neighbours in logarithms of both; for fewer layers than four it is that of four.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        rates = LEARNING_RATES[self.optimizer]
        if self.layers in rates:
            return rates[self.layers]
        known = np.log(list(rates.items())).T
        return float(np.exp(np.interp(np.log(self.layers), *known)))

    @property
    def milestones(self) -> list[int]:
        """Epochs after which the learning rate is divided by 10."""
        return thirds_of(self.epochs)


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


class FeedForward(CrossEntropyModule):
    """Hidden layers and a linear classifier."""

    def __init__(self, setting: Setting, pixels: int = 100) -> None:
        super().__init__()
        self.setting = setting
        self.milestones = setting.milestones
        widths = (pixels, *setting.widths)
        hidden = [HiddenLayer(before, after, setting) for before, after in pairwise(widths)]
        self.hidden = nn.Sequential(nn.Flatten(), *hidden)
        self.classifier = nn.Linear(widths[-1], 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.classifier(self.hidden(images))

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[MultiStepLR]]:
        """Divide the learning rate by 10 after one third and after two thirds of the epochs."""
        rate = self.setting.rate
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer: torch.optim.Optimizer
        if self.setting.optimizer == "adam":
            optimizer = torch.optim.Adam(trained, rate, weight_decay=5e-4)
        else:
            momentum = 0.9 if self.setting.optimizer == "momentum" else 0.0
            optimizer = torch.optim.SGD(trained, rate, momentum, weight_decay=5e-4)
        return [optimizer], [MultiStepLR(optimizer, self.milestones, gamma=0.1)]

    def train_bottom(self, alone: bool) -> None:
        """Have the modules at the bottom be trained alone, or have only the others be trained."""
        bottom = 1 + self.setting.bottom_first  # the first is `nn.Flatten`
        self.requires_grad_(not alone)
        self.hidden[:bottom].requires_grad_(alone)
        self.milestones = [] if alone else self.setting.milestones


def train(
    setting: Setting,
    epochs: Sequence[int],
    batch_norm: str = "batch",
    folder: Path = FOLDER,
    of_test_data: bool = False,
    of_generalisation: bool = False,
) -> list[dict[str, float | list[float]]]:
    """Train a network, and measure it at some epochs.

    Args:
        setting: The network and its training.
        epochs: Epochs to measure after, if there are as many; 0 is before training.
        batch_norm: Statistics that BatchNorm uses in measurements, ``"batch"`` or ``"eval"``.
        folder: Folder of the data.
        of_test_data: Whether to measure 1000 images of the test set, too.
        of_generalisation: Whether to say how well the network does before and after training.

    Returns:
        For each measurement ``epoch``, the values of the law, ``nc1``, ``accuracy``, and ``D``, the
        fuzziness of the input and after every hidden layer; ``class_r``, r of each class; of test
        data, ``test_r`` and ``test_total``; at both ends of training those of `generalisation`.
    """
    pl.seed_everything(setting.seed, verbose=False)
    drawn = (setting.data, setting.per_class, setting.seed, folder)
    dataset = training_images(*drawn)
    probe = Probe(dataset, "probe", samples_per_class=None, batch_norm=batch_norm, batch_size=100)
    due = [epoch for epoch in epochs if epoch <= setting.epochs]
    options = {"probe": probe, "epochs": due, "figures": False, "on_error": "raise"}
    law, collapse = EquiSeparation(**options), NeuralCollapse(**options)
    used = [law, collapse]
    if of_test_data:
        test_data = test_images(*drawn)
        some = Subset(test_data, choose(test_data.tensors[1], 100, setting.seed).tolist())
        of_test = replace(probe, source=some, name="test")
        used.append(EquiSeparation(**options | {"probe": of_test}))
    network = FeedForward(setting, pixels=dataset.tensors[0][0].numel())
    batches = whole_batches(dataset, 128)
    if setting.bottom_first:
        network.train_bottom(alone=True)
        train_quietly(network, batches, round(ALONE * setting.epochs), [])
        network.train_bottom(alone=False)
    ends: dict[float, dict[str, float]] = {}
    if of_generalisation:
        ends[0] = generalisation(network, dataset, test_images(*drawn))
    train_quietly(network, batches, setting.epochs, used)
    if of_generalisation:
        ends[setting.epochs] = generalisation(network, dataset, test_images(*drawn))
    return [
        of_epoch(*measurements) | ends.get(measurements[0].epochs_completed, {})
        for measurements in zip(*(c.history for c in used), strict=True)
    ]


@torch.no_grad()
def generalisation(
    network: FeedForward, dataset: TensorDataset, test_data: TensorDataset
) -> dict[str, float]:
    """The ``loss`` on the training set, in nats, and ``test_accuracy``, both in evaluation mode."""
    network.eval()
    (images, labels), (test, expected) = dataset.tensors, test_data.tensors
    found = {
        "loss": float(nn.functional.cross_entropy(network(images), labels)),
        "test_accuracy": float((network(test).argmax(1) == expected).double().mean()),
    }
    network.train()
    return found


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
