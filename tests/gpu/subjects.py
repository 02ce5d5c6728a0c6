"""Networks of known size, data that are made on the device, and how to measure them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import lightning_nc
from tests.gpu.networks import Positions


class Basic(nn.Module):
    """The block of ResNet-18."""

    widening = 1

    def __init__(self, before, width, stride):
        super().__init__()
        self.body = nn.Sequential(
            *convolution(before, width, 3, stride), nn.ReLU(), *convolution(width, width, 3)
        )
        self.shortcut = shortcut(before, width, stride)

    def forward(self, h):
        return torch.relu(self.body(h) + self.shortcut(h))


class Bottleneck(nn.Module):
    """The block of ResNet-50."""

    widening = 4

    def __init__(self, before, width, stride):
        super().__init__()
        after = 4 * width
        first, second = convolution(before, width, 1), convolution(width, width, 3, stride)
        self.body = nn.Sequential(
            *first, nn.ReLU(), *second, nn.ReLU(), *convolution(width, after, 1)
        )
        self.shortcut = shortcut(before, after, stride)

    def forward(self, h):
        return torch.relu(self.body(h) + self.shortcut(h))


def convolution(before, after, size, stride=1):
    layer = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
    return layer, nn.BatchNorm2d(after)


def shortcut(before, after, stride):
    if before == after and stride == 1:
        return nn.Identity()
    return nn.Sequential(*convolution(before, after, 1, stride))


def resnet(block, depths, classes, width=64, small_images=False):
    """A ResNet as published, or with the usual stem for images of 32 x 32."""
    if small_images:
        layers = [*convolution(3, width, 3), nn.ReLU()]
    else:
        layers = [*convolution(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = width
    for stage, depth in enumerate(depths):
        for number in range(depth):
            stride = 2 if stage > 0 and number == 0 else 1
            layers.append(block(before, width * 2**stage, stride))
            before = block.widening * width * 2**stage
    return nn.Sequential(*layers, Positions(), nn.Linear(before, classes))


def vit(classes, side, **size):
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(num_labels=classes, image_size=side, **size))


def gpt2(classes, **size):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    return GPT2ForSequenceClassification(GPT2Config(num_labels=classes, pad_token_id=0, **size))


def images(side):
    """Return a function that makes images from sample numbers and classes."""

    def make(numbers, labels):
        place = torch.arange(3 * side * side, device=numbers.device)
        own = torch.sin(0.37 * numbers[:, None] + 0.013 * place * (1 + numbers[:, None] % 7))
        of_class = torch.cos(0.003 * place * (1 + labels[:, None]))
        return (own + of_class).unflatten(1, (3, side, side))

    return make


def tokens(length, vocabulary):
    """Return a function that makes texts from sample numbers and classes."""

    def make(numbers, labels):
        place = torch.arange(length, device=numbers.device)
        ids = (7919 * numbers[:, None] + (31 + labels[:, None]) * place) % (vocabulary - 1) + 1
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return make


class Numbers(Dataset):
    """Sample numbers alone, since slow reading would hide the cost of a measurement."""

    def __init__(self, size, classes):
        self.targets = torch.arange(size) % classes

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, number):
        return torch.tensor(number), self.targets[number]

    def __getitems__(self, numbers):
        return torch.tensor(numbers), self.targets[numbers]


def as_it_is(batch):
    return batch


class Subject(NamedTuple):
    """A network, and the samples on which it is measured.

    Attributes:
        name: Name of the network, with the size of its inputs and the number of classes.
        build: Function that makes the network.
        make: Function that makes inputs from sample numbers and classes.
        classes: Number of classes K.
        each: Samples per class that are measured.
        batch: Samples per batch.
        epoch: Samples per training epoch of the data set that the network is known for.
        layers: Class name of the blocks, if the raw input is too wide to be measured.
        pool: Pooling of sequences.
    """

    name: str
    build: Callable[[], nn.Module]
    make: Callable[..., Any]
    classes: int
    each: int
    batch: int
    epoch: int
    layers: str | None = None
    pool: Any = "auto"

    @property
    def samples(self):
        return self.classes * self.each

    def loader(self, each=None):
        data = Numbers(self.classes * (each or self.each), self.classes)
        return DataLoader(data, self.batch, collate_fn=as_it_is)

    def unpack(self, batch):
        return self.make(*batch), batch[1]


def large():
    """Subjects for a GPU, of well-known sizes."""
    return [
        Subject(
            "ResNet-18, 32 x 32, 10 classes",
            lambda: resnet(Basic, (2, 2, 2, 2), 10, small_images=True),
            *(images(32), 10, 100, 125, 50_000),
        ),
        Subject(
            "ViT-B/16, 224 x 224, 1000 classes",
            lambda: vit(1000, 224),
            *(images(224), 1000, 4, 200, 1_281_167, "ViTLayer", lightning_nc.first_token),
        ),
        Subject(
            "ResNet-50, 224 x 224, 1000 classes",
            lambda: resnet(Bottleneck, (3, 4, 6, 3), 1000),
            *(images(224), 1000, 4, 200, 1_281_167),
        ),
        Subject(
            "GPT-2 small, 128 tokens, 20 classes",
            lambda: gpt2(20),
            *(tokens(128, 50_257), 20, 100, 50, 100_000, None, lightning_nc.last_token),
        ),
    ]


def small():
    """Subjects for a CPU: the same code in a few seconds."""
    tiny_vit = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    tiny_gpt2 = {
        "n_embd": 16,
        "n_layer": 3,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "n_head": 2,
        "vocab_size": 50,
    }
    return [
        Subject(
            "ResNet of 4 blocks, width 4, 32 x 32, 4 classes",
            lambda: resnet(Basic, (1, 1, 1, 1), 4, width=4, small_images=True),
            *(images(32), 4, 4, 4, 64),
        ),
        Subject(
            "ViT of 3 layers, width 16, 32 x 32, 4 classes",
            lambda: vit(4, 32, intermediate_size=32, **tiny_vit),
            *(images(32), 4, 4, 4, 64, "ViTLayer", lightning_nc.first_token),
        ),
        Subject(
            "ResNet of 4 bottlenecks, width 2, 32 x 32, 4 classes",
            lambda: resnet(Bottleneck, (1, 1, 1, 1), 4, width=2),
            *(images(32), 4, 4, 4, 64),
        ),
        Subject(
            "GPT-2 of 3 layers, width 16, 12 tokens, 4 classes",
            lambda: gpt2(4, **tiny_gpt2),
            *(tokens(12, 50), 4, 4, 4, 64, None, lightning_nc.last_token),
        ),
    ]
