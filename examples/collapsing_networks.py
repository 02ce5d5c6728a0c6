"""The networks and data of the examples of collapse: three kinds of networks, on two data sets."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch
from example_setup import CrossEntropyModule, options_of, parsed
from fashion_mnist import FOLDER, choose, subset
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset


def samples(data: str, per_class: int, seed: int, folder: Path = FOLDER) -> TensorDataset:
    """Draw the same number of images of each class.

    Args:
        data: ``"FashionMNIST"``, resized to 14x14, or ``"digits"`` of scikit-learn, 8x8.
        per_class: Images of each class.
        seed: Seed of the draw.
        folder: Folder of FashionMNIST.

    Returns:
        Images in [-1, 1], shape ``(10 * per_class, 1, size, size)``, and labels.
    """
    if data == "FashionMNIST":
        return subset("train", per_class, 14, seed, folder)
    images, labels = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
    chosen = choose(labels, per_class, seed)
    return TensorDataset((images[chosen] / 8 - 1).float().view(-1, 1, 8, 8), labels[chosen])


def options_of_runs(
    doc: str | None, short: str, networks: Iterable[str], data_sets: Iterable[str], epochs: int
) -> argparse.ArgumentParser:
    """Return a parser with the options of an example that trains networks on data sets.

    Args:
        doc: The docstring of the example.
        short: What ``--short`` leaves out.
        networks: The kinds that can be chosen, all by default.
        data_sets: The data sets that can be chosen, all by default.
        epochs: Default of ``--epochs``.
    """
    parser = options_of(doc, seeds=(0, 1, 2), fashion_mnist=True, short=short)
    add = parser.add_argument
    add("--networks", nargs="+", choices=[*networks], default=[*networks])
    add("--data-sets", nargs="+", choices=[*data_sets], default=[*data_sets])
    add("--epochs", type=int, default=epochs, help="the learning rate schedule scales with it")
    return parser


def parsed_runs(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; the short form is a perceptron on digits with one seed."""
    options = parsed(parser)
    if options.short:
        options.networks, options.data_sets, options.seeds = ["MLP"], ["digits"], [0]
    return options


def features(kind: str, size: int, width: int = 16, convolutions: int = 1) -> nn.Sequential:
    """Everything before the classifier, for images of shape ``(1, size, size)``.

    Args:
        kind: ``"MLP"``, ``"VGG"`` or ``"ResNet"``.
        size: Height and width of the images.
        width: Channels of the first convolution; the later ones have 2 and 4 times as many.
        convolutions: Number before each pooling, for ``"VGG"``.
    """
    if kind == "MLP":
        return nn.Sequential(nn.Flatten(), hidden(size**2), hidden(256), hidden(256))
    if kind == "VGG":
        pools = [nn.MaxPool2d(2), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)]
        parts: list[nn.Module] = []
        for channels_in, channels, pool in zip(
            (1, width, 2 * width), (width, 2 * width, 4 * width), pools, strict=True
        ):
            for before in [channels_in] + [channels] * (convolutions - 1):
                parts += [convolution(before, channels), nn.ReLU()]
            parts.append(pool)
        return nn.Sequential(*parts, nn.Flatten())
    return nn.Sequential(
        convolution(1, width, stride=2 if size > 8 else 1),
        nn.ReLU(),
        BasicBlock(width, width, stride=1),
        BasicBlock(width, 2 * width, stride=2),
        BasicBlock(2 * width, 4 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def features_of_paper(kind: str) -> nn.Sequential:
    """Everything before the classifier in the paper's networks, for images of shape (1, 32, 32).

    Args:
        kind: ``"VGG"`` for VGG11 with BatchNorm, or ``"ResNet"`` for ResNet18; both have 512
            features.
    """
    if kind == "VGG":
        parts: list[nn.Module] = []
        last = 1
        for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):  # 0 for pooling
            parts += [convolution(last, width), nn.ReLU()] if width else [nn.MaxPool2d(2)]
            last = width or last
        return nn.Sequential(*parts, nn.Flatten())
    blocks: list[nn.Module] = []
    for before, after in ((64, 64), (64, 128), (128, 256), (256, 512)):
        blocks += [BasicBlock(before, after, stride=after // before), BasicBlock(after, after, 1)]
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(convolution(1, 64), nn.ReLU(), *blocks, pool, nn.Flatten())


class LinearOnFeatures(CrossEntropyModule):
    """Features and a linear classifier of ten classes."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.features, self.classifier = network, nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.classifier(self.features(images))


def hidden(before: int, after: int = 256) -> nn.Sequential:
    """Linear, BatchNorm, ReLU."""
    return nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())


def convolution(channels_in: int, channels: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution that keeps the size of a map, if the stride is 1, and BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to the input."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            convolution(channels_in, channels, stride), nn.ReLU(), convolution(channels, channels)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of shape ``(N, channels, H / stride, W / stride)``."""
        return torch.relu(self.residual(x) + self.shortcut(x))
