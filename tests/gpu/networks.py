"""Tiny networks to train, and the layers that they are made of."""

from collections import OrderedDict

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.gpu.given import clusters


class ChannelsLast(nn.Module):
    """Changes images to the layout that some convolutions prefer."""

    def forward(self, x):
        return x.contiguous(memory_format=torch.channels_last)


class Positions(nn.Module):
    """The mean over positions, since torch's pooling has no deterministic gradient on CUDA."""

    def forward(self, x):
        return x.mean((2, 3))


class Shift(nn.Module):
    """Moves features away from the origin."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x + self.by


class Recomputed(nn.Sequential):
    """Keeps no activations for the backward pass, which recomputes them."""

    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


def named(**layers):
    return nn.Sequential(OrderedDict(layers))


def mlp(classes=4, width=16, dropout=0.0, offset=0, norm=nn.BatchNorm1d):
    """For vectors of size 6; `entry` is the raw input, `features` comes before shift and head."""
    return named(
        entry=nn.Identity(),
        first=nn.Linear(6, width),
        norm=norm(width),
        hidden=nn.LeakyReLU(),
        dropout=nn.Dropout(dropout),
        second=nn.Linear(width, 12),
        features=nn.LeakyReLU(),
        shift=Shift(offset),
        head=nn.Linear(12, classes),
    )


def convnet(classes=4, layout=nn.Identity):
    """For images of shape (3, 8, 8)."""
    return named(
        entry=nn.Identity(),
        layout=layout(),
        first=nn.Conv2d(3, 8, 3),
        norm=nn.BatchNorm2d(8),
        hidden=nn.LeakyReLU(),
        second=nn.Conv2d(8, 12, 3, stride=2),
        act=nn.LeakyReLU(),
        features=Positions(),
        head=nn.Linear(12, classes),
    )


def recomputed(classes=4):
    """For vectors of size 6; its hidden layers are computed twice in training."""
    hidden = Recomputed(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 12), nn.ReLU())
    return named(entry=nn.Identity(), hidden=hidden, head=nn.Linear(12, classes))


class LastOfSequence(nn.Module):
    """The last output of a recurrent layer, for which a vector is a sequence of numbers."""

    def __init__(self, width, layers=1, dropout=0.0):
        super().__init__()
        self.layer = nn.RNN(1, width, layers, batch_first=True, dropout=dropout)

    def forward(self, x):
        return self.layer(x[..., None])[0][:, -1]


class WithoutCudnn(nn.Linear):
    """Reads and sets what torch asks of cuDNN, as some losses of speech do."""

    def forward(self, x):
        with torch.backends.cudnn.flags(enabled=False):
            return super().forward(x)


def recurrent(classes=4, layers=1, dropout=0.0):
    """For vectors of size 6, with a layer of which cuDNN has gradients in training alone."""
    last = LastOfSequence(5, layers, dropout)
    return named(entry=nn.Identity(), features=last, head=WithoutCudnn(5, classes))


def small_images(classes=4, each=9, seed=1):
    """Images of separated classes, shape (3, 8, 8) each, and labels."""
    inputs, labels = clusters(classes, each, d=192, seed=seed)
    return inputs.unflatten(1, (3, 8, 8)), labels
