"""The convolutional networks of the law of equi-separation, small enough for a CPU.

They learn 1000 images of FashionMNIST by Adam for 60 epochs; the learning rate is divided by 10
after a third and after two thirds of them. Images have half the height and width that they have in
the authors' code, and AlexNet and VGG13 an eighth of the channels. As there, images are given to a
network in several copies, as so many channels; kernels are 5x5 but for residual blocks of two
layers; residual networks begin with a block, and keep the size of the images. D is measured on the
training set with BatchNorm using the statistics of each batch.

Source:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36), and its code.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from collapsing_networks import convolution
from example_setup import CrossEntropyModule, thirds_of, train_quietly
from fashion_mnist import FOLDER, subset, whole_batches
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from lightning_nc import EquiSeparation, Measurement, NeuralCollapse, Probe

SIZE, COPIES = 16, 8  # of an image; in the authors' code 32, and 8, 16 or 32
EPOCHS, RATE, WEIGHT_DECAY, BATCH = 60, 1e-3, 5e-4, 128
RESIDUAL = {
    "ResNet, blocks of 2 layers": (2, 2, 2, 2),
    "ResNet, blocks of 3 layers": (3, 3, 3, 3),
    "ResNet, mixed blocks": (3, 3, 2, 2),
}
LAW = ("pearson_r", "rho", "total")
HIDDEN = 512  # width of the fully connected layers of AlexNet and VGG13


class Layer(nn.Sequential):
    """A convolution or a linear map, BatchNorm, ReLU: what the law counts as one layer.

    It has a class of its own, so that `EquiSeparation` finds its instances as blocks.
    """


class ResidualBlock(nn.Module):
    """Convolutions with BatchNorm, added to the input; a ReLU between them and after the sum.

    Args:
        layers: How many convolutions: two of 3x3, or more of 5x5.
        channels: Channels of the input and of each convolution.
    """

    def __init__(self, layers: int, channels: int = COPIES) -> None:
        super().__init__()
        kernel = 3 if layers == 2 else 5
        parts: list[nn.Module] = [convolution(channels, channels, 1, kernel)]
        for _ in range(layers - 1):
            parts += [nn.ReLU(), convolution(channels, channels, 1, kernel)]
        self.residual = nn.Sequential(*parts)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of the input."""
        return self.relu(self.residual(x) + x)


class DenseBlock(nn.Module):
    """Layers of BatchNorm, ReLU and a 3x3 convolution, each of which reads all that were before it.

    Args:
        channels: Channels of the input.
        growth: Channels of each layer.
        layers: How many layers there are.
    """

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        widths = [channels + growth * layer for layer in range(layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth, 3, padding=1, bias=False)
            )
            for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the input's channels and those of all layers."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def alexnet() -> tuple[list[nn.Module], int]:
    """Five convolutions and two fully connected layers, and the width of the last."""
    pool = nn.MaxPool2d(3, 2, padding=1)
    first = [layer(COPIES, 8), pool, layer(8, 24), pool]
    rest = [layer(24, 48), layer(48, 32), layer(32, 32), pool, nn.Flatten()]
    return [*first, *rest, *fully_connected(32 * 2 * 2)], HIDDEN


def vgg13() -> tuple[list[nn.Module], int]:
    """Ten convolutions and two fully connected layers, and the width of the last.

    There is no pooling before the last two convolutions, whose maps would have one pixel.
    """
    parts: list[nn.Module] = []
    before = COPIES
    for stage, channels in enumerate((8, 16, 32, 64, 64)):
        parts += [layer(before, channels), layer(channels, channels)]
        parts += [nn.MaxPool2d(2)] if stage != 3 else []
        before = channels
    return [*parts, nn.Flatten(), *fully_connected(before)], HIDDEN


def densenet() -> tuple[list[nn.Module], int]:
    """Four dense blocks, with transitions that halve channels and size, and the last width."""
    channels, growth, layers = 16, 8, 3
    parts: list[nn.Module] = [nn.Conv2d(COPIES, channels, 3, padding=1, bias=False)]
    for number in range(4):
        if number:
            shrink = nn.Conv2d(channels, channels // 2, 1, bias=False)
            parts += [shrink, nn.AvgPool2d(2)]
            channels //= 2
        parts.append(DenseBlock(channels, growth, layers))
        channels += growth * layers
        parts += [nn.BatchNorm2d(channels), nn.ReLU()]
    return [*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten()], channels


def resnet(layers: Sequence[int]) -> tuple[list[nn.Module], int]:
    """Residual blocks of so many layers, and the number of their last features."""
    return [*(ResidualBlock(each) for each in layers), nn.Flatten()], COPIES * SIZE**2


def layer(channels_in: int, channels: int) -> Layer:
    """A layer with a 5x5 convolution."""
    return Layer(*convolution(channels_in, channels, 1, 5), nn.ReLU())


def fully_connected(width: int) -> list[Layer]:
    """The two layers before the classifier of AlexNet and VGG13."""
    widths = ((width, HIDDEN), (HIDDEN, HIDDEN))
    return [Layer(nn.Linear(*each), nn.BatchNorm1d(HIDDEN), nn.ReLU()) for each in widths]


OTHERS = {"AlexNet": alexnet, "VGG13": vgg13, "DenseNet": densenet}


class Network(CrossEntropyModule):
    """Features and a linear classifier.

    Args:
        kind: A key of `OTHERS` or `RESIDUAL`.
        epochs: Length of the training; the schedule of the learning rate scales with it.
    """

    def __init__(self, kind: str, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        parts, width = resnet(RESIDUAL[kind]) if kind in RESIDUAL else OTHERS[kind]()
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.classifier(self.features(images.repeat(1, COPIES, 1, 1)))

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[MultiStepLR]]:
        """Divide the learning rate by 10 after one third and after two thirds of the epochs."""
        optimizer = torch.optim.Adam(self.parameters(), RATE, weight_decay=WEIGHT_DECAY)
        return [optimizer], [MultiStepLR(optimizer, thirds_of(self.epochs), gamma=0.1)]


def layers_of(network: nn.Module) -> list[str]:
    """The raw input and every ReLU of a network: what its layers give, one by one."""
    return ["input", *(n for n, module in network.named_modules() if isinstance(module, nn.ReLU))]


def train(kind: str, seed: int, epochs: int = EPOCHS, folder: Path = FOLDER) -> Sequence[Any]:
    """Train a network, and measure the law before and after.

    Args:
        kind: A key of `OTHERS` or `RESIDUAL`.
        seed: Seed of images, initialisation and order of batches.
        epochs: Length of the training.
        folder: Folder of FashionMNIST.

    Returns:
        For each of the two measurements ``blocks``, the law over the modules that `EquiSeparation`
        finds, for residual networks also ``layers``, the law over all layers, and ``accuracy``.
        A law is a dict of ``D``, ``pearson_r``, ``rho`` and ``total``.
    """
    pl.seed_everything(seed, verbose=False)
    dataset = subset("train", per_class=100, size=SIZE, seed=seed, folder=folder)
    network = Network(kind, epochs)
    modules = {"blocks": "blocks"} | ({"layers": layers_of(network)} if kind in RESIDUAL else {})
    probe = Probe(dataset, "blocks", samples_per_class=None, batch_norm="batch", batch_size=100)
    options = {"epochs": (0, epochs), "figures": False, "on_error": "raise"}
    over = {
        name: EquiSeparation(layers, probe=replace(probe, name=name), **options)
        for name, layers in modules.items()
    }
    collapse = NeuralCollapse(probe=probe, **options)
    train_quietly(network, whole_batches(dataset, BATCH), epochs, [*over.values(), collapse])
    return [
        {name: law_of(callback.history[time], name) for name, callback in over.items()}
        | {"accuracy": collapse.history[time].values["nc/blocks/accuracy"]}
        for time in (0, -1)
    ]


def law_of(measured: Measurement, probe: str) -> dict[str, Any]:
    """D of each point and the line through ln D, as `train` returns them."""
    values = {key: measured.values[f"separation/{probe}/{key}"] for key in LAW}
    return {"D": measured.arrays["fuzziness"].tolist()} | values
