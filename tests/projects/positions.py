"""Projects whose samples are positions: pixels, tokens, nodes."""

import heapq
import re

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests import architectures
from tests.projects.harness import EVERY_PIXEL, EVERY_TOKEN, IGNORED, Project, Training

CLASSES = 3
LENGTH = 32  # tokens of a piece of text


def labelled_pixels(samples=4, size=8, seed=0):
    """Images of three kinds of pixels; the border and a few others have no label."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (samples, size // 2, size // 2), generator=random)
    labels = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    colours = torch.randn(CLASSES, 3, generator=random)
    images = colours[labels].movedim(-1, 1)
    images = images + 0.5 * torch.randn(images.shape, generator=random)
    labels = labels.clone()
    labels[:, 0] = labels[:, :, 0] = IGNORED
    labels[torch.rand(labels.shape, generator=random) < 0.1] = IGNORED
    return TensorDataset(images, labels)


class DoubleConv(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(c, out, 3, padding=1) for c in (channels, out))
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x):
        return torch.relu(self.norm(self.conv2(torch.relu(self.conv1(x)))))


class Segmentation(nn.Sequential):
    """Encoder and decoder: the middle has half the resolution of the labels."""

    def __init__(self):
        super().__init__()
        self.down, self.pool = DoubleConv(3, 8), nn.MaxPool2d(2)
        self.middle, self.up = DoubleConv(8, 12), nn.Upsample(scale_factor=2)
        self.last, self.head = DoubleConv(12, 8), nn.Conv2d(8, CLASSES, 1)


class WideHead(Segmentation):
    """With a convolution over 3 x 3 pixels as head."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(8, CLASSES, 3, padding=1)


def nearest_pixel(h, batch):
    """The features at the pixels of labels, of a map with half as many along each axis."""
    return EVERY_PIXEL.take(h.repeat_interleave(2, 2).repeat_interleave(2, 3), batch)


COARSE = EVERY_PIXEL._replace(take=nearest_pixel)


class GraphConvolution(nn.Module):
    """Mixes the features of neighbours, by a sparse adjacency matrix that is a buffer."""

    def __init__(self, adjacency, width, out):
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.register_buffer("adjacency", adjacency)

    def forward(self, nodes):
        mixed = torch.sparse.mm(self.adjacency, self.linear(nodes)[0])
        return torch.relu(mixed)[None]


def graph(layout=torch.sparse_coo, nodes=60, seed=0):
    """A graph of three communities; a fifth of its nodes have no label."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(nodes) % CLASSES
    same = labels[:, None] == labels
    edges = torch.rand(nodes, nodes, generator=random) < torch.where(same, 0.2, 0.02)
    edges = (edges | edges.T | torch.eye(nodes, dtype=torch.bool)).float()
    adjacency = (edges / edges.sum(1, keepdim=True)).to_sparse(layout=layout)
    inputs = torch.randn(nodes, 6, generator=random) + nn.functional.one_hot(labels, 6)
    labels[torch.rand(nodes, generator=random) < 0.2] = IGNORED
    layers = [GraphConvolution(adjacency, width, 8) for width in (6, 8)]
    module = Positions(nn.Sequential(*layers, nn.Linear(8, CLASSES)))
    return module, DataLoader(TensorDataset(inputs[None], labels[None]))


class Positions(Training):
    """Logits have classes on the last axis."""

    def training_step(self, batch, _):
        logits, labels = self.measured(batch, "train")
        return nn.functional.cross_entropy(logits.mT, labels)


class Language(Training):
    """GPT-2, whose classes are tokens: each position is a sample of the class of the next token."""

    def forward(self, input_ids):
        return self.net(input_ids=input_ids).logits

    def measured(self, batch, probe):
        ids = batch["input_ids"]
        labels = torch.full_like(ids, IGNORED)
        labels[:, :-1] = ids[:, 1:]
        return self(ids), labels

    def training_step(self, batch, _):
        return self.net(**batch, labels=batch["input_ids"]).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.003)


class Tokens(torch.utils.data.Dataset):
    """Pieces of a text."""

    def __init__(self, ids):
        self.ids = ids

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index]}


def gpt2(vocabulary, length, width=16):
    import transformers

    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=length,
        n_embd=width,
        n_layer=3,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.GPT2LMHeadModel(config)


def language():
    random = torch.Generator().manual_seed(0)
    steps = torch.randint(1, 3, (16, 12), generator=random)
    return Language(gpt2(8, 12)), DataLoader(Tokens(steps.cumsum(1) % 8), 4, shuffle=True)


def text():
    """The letters of a text that comes with Python, and spaces."""
    letters = re.sub("[^a-z]+", " ", heapq.__about__.lower())
    alphabet = sorted(set(letters))
    ids = torch.tensor([alphabet.index(each) for each in letters])
    pieces = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    return Language(gpt2(len(alphabet), LENGTH, 32)), DataLoader(Tokens(pieces), 16, shuffle=True)


ON_A_TEXT = "GPT-2 on the letters of a text"
NEXT_TOKEN = (
    'probe = Probe("train", unpack=next_token); '
    "[NeuralCollapse(probe=probe), EquiSeparation(probe=probe)]"
)
TEXT = (
    'probe = Probe("train", unpack=next_token, samples_per_class=None); '
    "[NeuralCollapse(probe=probe, every_n_epochs=3), EquiSeparation(probe=probe, every_n_epochs=3)]"
)

PROJECTS = [
    Project(
        "Segmentation with an ignored label",
        lambda: (Training(Segmentation()), DataLoader(labelled_pixels(), 2, shuffle=True)),
        {"input": EVERY_PIXEL, "net.down": EVERY_PIXEL, "net.middle": COARSE}
        | {"net.last": EVERY_PIXEL},
        {"train": "net.head"},
        last_pooling=EVERY_PIXEL,
        classes=CLASSES,
        samples="pixels",
    ),
    Project(
        "Segmentation with a head of 3 x 3 pixels",
        lambda: (Training(WideHead()), DataLoader(labelled_pixels(), 2, shuffle=True)),
        {"input": EVERY_PIXEL, "net.down": EVERY_PIXEL, "net.middle": COARSE}
        | {"net.last": EVERY_PIXEL},
        {},
        last="net.head",
        last_pooling=EVERY_PIXEL,
        classes=CLASSES,
        samples="pixels",
        said=["is a convolution over several positions"],
    ),
    Project(
        "A graph network with a sparse adjacency buffer",
        graph,
        dict.fromkeys(["input", "net.0", "net.1"], EVERY_TOKEN),
        {"train": "net.2"},
        last_pooling=EVERY_TOKEN,
        classes=CLASSES,
        samples="nodes",
    ),
    Project(
        "GPT-2 (transformers) by the class of the next token",
        language,
        dict.fromkeys(architectures.numbered("net.transformer.h", 3), EVERY_TOKEN),
        {"train": "net.lm_head"},
        last_pooling=EVERY_TOKEN,
        code=NEXT_TOKEN,
        classes=8,
        samples="tokens",
    ),
    Project(
        ON_A_TEXT,
        text,
        dict.fromkeys(architectures.numbered("net.transformer.h", 3), EVERY_TOKEN),
        {"train": "net.lm_head"},
        last_pooling=EVERY_TOKEN,
        code=TEXT,
        classes=26,
        samples="tokens",
        options={"max_epochs": 6},
    ),
]
