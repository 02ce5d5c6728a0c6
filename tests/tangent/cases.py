"""Networks of which a tangent kernel is to be found: layers of many kinds, each within one."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, rnn
from torch.utils.checkpoint import checkpoint

from tests.sensitive import Merging


class Net(nn.Module):
    """A forward function of a network of these parts and its inputs."""

    def __init__(self, call, **parts):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.call(self, *args, **kwargs)


def mlp(C=3):
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, C)).double()


class Scaled(nn.Linear):
    """A linear layer by name, not by what it does."""

    def forward(self, x):
        return 2 * super().forward(x).sin()


def parameter(*shape):
    return nn.Parameter(torch.randn(shape))


def shift():
    return Net(lambda s, x: torch.tanh(x + s.p), p=parameter(4))


def tied():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return first, nn.Tanh(), second


def randomised(net):
    """Scales that are not 1, and statistics that are not 0 and 1."""
    for module in net.modules():
        if "Norm" in type(module).__name__:
            for _, tensor in (*module.named_parameters(recurse=False), *module.named_buffers()):
                if tensor.is_floating_point():
                    tensor.data.uniform_(0.5, 2)
    return net.eval()


def on(size, *layers, out=3):
    """Layers between a linear map of the inputs and one of their mean over all places."""
    sides = (1,) * (len(size) - 1)
    mix = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(size) - 1](2, size[0], sides)
    net = nn.Sequential(mix, nn.ReLU(inplace=True), *layers, nn.Tanh(), nn.Flatten())
    return randomised(nn.Sequential(net, nn.LazyLinear(out))), torch.randn(3, 2, *size[1:]).double()


def convolution(kind, size, *options, **more):
    net, x = on(size, kind(size[0], *options, **more))
    net.double()(x)
    return net, x


def rows(*layers, d=4, steps=5):
    """Layers on sequences, batch first."""
    net = nn.Sequential(nn.Linear(d, d), nn.ReLU(inplace=True), *layers, nn.Flatten())
    net = randomised(nn.Sequential(net, nn.LazyLinear(3))).double()
    x = torch.randn(3, steps, d).double()
    net(x)
    return net, x


LAYERS = {
    "conv1d strided": lambda: convolution(nn.Conv1d, (4, 11), 3, 3, stride=2, padding=1),
    "conv1d dilated": lambda: convolution(nn.Conv1d, (4, 11), 3, 3, dilation=3, stride=2),
    "conv1d causal same": lambda: convolution(nn.Conv1d, (4, 6), 3, 4, padding="same"),
    "conv2d": lambda: convolution(nn.Conv2d, (3, 5, 6), 4, 3, padding=1),
    "conv2d strided": lambda: convolution(nn.Conv2d, (3, 8, 7), 4, (3, 2), stride=(2, 3)),
    "conv2d dilated": lambda: convolution(nn.Conv2d, (3, 8, 8), 4, 3, dilation=(1, 2), bias=False),
    "conv2d grouped": lambda: convolution(nn.Conv2d, (4, 5, 5), 6, 3, groups=2),
    "conv2d depthwise": lambda: convolution(nn.Conv2d, (4, 5, 5), 8, 3, groups=4, padding=1),
    "conv2d same": lambda: convolution(nn.Conv2d, (3, 5, 5), 4, (2, 4), padding="same"),
    "conv2d circular": lambda: convolution(
        nn.Conv2d, (3, 5, 5), 4, 3, padding=(1, 2), padding_mode="circular"
    ),
    "conv2d reflect": lambda: convolution(
        nn.Conv2d, (4, 5, 5), 4, 3, padding=1, padding_mode="reflect", groups=2
    ),
    "conv2d 1x1": lambda: convolution(nn.Conv2d, (3, 4, 4), 4, 1),
    "conv3d": lambda: convolution(nn.Conv3d, (3, 4, 3, 5), 2, (2, 1, 3), stride=(1, 2, 1)),
    "conv transpose": lambda: convolution(nn.ConvTranspose2d, (3, 4, 4), 2, 3, stride=2),
    "batch norm": lambda: convolution(lambda c: nn.BatchNorm2d(c), (3, 4, 4)),
    "group norm": lambda: convolution(lambda c: nn.GroupNorm(2, c), (4, 4, 4)),
    "instance norm": lambda: convolution(lambda c: nn.InstanceNorm2d(c, affine=True), (3, 4, 4)),
    "batch norm of vectors": lambda: (
        randomised(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(True))),
        torch.randn(3, 4).double(),
    ),
    "layer norm": lambda: rows(nn.LayerNorm(4)),
    "layer norm of two axes": lambda: rows(nn.LayerNorm((5, 4), bias=False)),
    "rms norm": lambda: rows(nn.RMSNorm(4)),
    "linear": lambda: rows(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 2)),
    "spectral norm": lambda: rows(parametrizations.spectral_norm(nn.Linear(4, 6))),
    "weight norm": lambda: rows(parametrizations.weight_norm(nn.Linear(4, 6))),
    "orthogonal": lambda: rows(parametrizations.orthogonal(nn.Linear(4, 4))),
    "weight norm by hooks": lambda: rows(nn.utils.weight_norm(nn.Linear(4, 6))),
    "spectral norm by hooks": lambda: rows(nn.utils.spectral_norm(nn.Linear(4, 6))),
    "attention": lambda: rows(
        Net(lambda s, x: s.a(x, x, x)[0], a=nn.MultiheadAttention(4, 2, batch_first=True))
    ),
    "encoder layer": lambda: rows(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)),
    "encoder layer, sequence first": lambda: rows(
        Net(
            lambda s, x: s.a(x.transpose(0, 1)).transpose(0, 1),
            a=nn.TransformerEncoderLayer(4, 2, 8),
        )
    ),
    "linear, sequence first": lambda: rows(
        Net(lambda s, x: s.a(x.transpose(0, 1)).transpose(0, 1), a=nn.Linear(4, 3))
    ),
    "rows of all samples step by step": lambda: rows(
        Net(
            lambda s, x: s.a(x.transpose(0, 1).flatten(0, 1)).view(5, -1, 4).transpose(0, 1),
            a=nn.Linear(4, 4),
        )
    ),
    "windows": lambda: rows(
        Net(
            lambda s, x: s.e(x.reshape(-1, 3, 4)).reshape(len(x), 6, 4),
            e=nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)),
        ),
        steps=6,
    ),
    "a module twice, at different lengths": lambda: rows(
        Net(
            lambda s, x: s.n(s.l(x)) + s.n(s.l(torch.tanh(s.l(x[:, 1:])))).sum(1, keepdim=True),
            l=nn.Linear(4, 4),
            n=nn.LayerNorm(4),
        )
    ),
    "a convolution at two lengths": lambda: rows(
        Net(
            lambda s, x: s.c(x) + s.c(x[..., :3]).sum(2, keepdim=True),
            c=nn.Conv1d(5, 5, 3, padding=1),
        )
    ),
    "tied linears": lambda: rows(nn.Tanh(), *tied(), nn.Tanh()),
    "weight used by another": lambda: rows(
        Net(lambda s, x: F.linear(torch.tanh(s.a(x)), s.a.weight), a=nn.Linear(4, 4))
    ),
    "bare parameters": lambda: rows(
        Net(
            lambda s, x: torch.cat([s.cls.expand(len(x), 1, 4), x], 1) + s.places,
            cls=parameter(1, 1, 4),
            places=parameter(6, 4),
        )
    ),
    "another forward": lambda: rows(Merging(4, 4), nn.Tanh(), Scaled(4, 4)),
    "a dict": lambda: rows(
        Net(lambda s, x: s.a(x)["h"], a=Net(lambda s, x: {"h": s.b(x)}, b=nn.Linear(4, 4)))
    ),
    "its second output": lambda: rows(
        Net(lambda s, x: sum(s.a(x)), a=Net(lambda s, x: (x, x.cos() * s.p), p=parameter(4)))
    ),
    "writes to its output": lambda: rows(
        Net(lambda s, x: s.b(s.a(x)).mul_(x), a=nn.Linear(4, 4), b=nn.LayerNorm(4))
    ),
    "writes to its own input": lambda: rows(
        Net(lambda s, x: s.a(x + 0), a=Net(lambda s, x: x.mul_(2) * s.p, p=parameter(4)))
    ),
    "a later write to its input": lambda: rows(
        Net(lambda s, x: (h := s.l(x), s.a(h) + h.mul_(3))[1], l=nn.Linear(4, 4), a=shift()),
    ),
    "checkpoint": lambda: rows(
        Net(
            lambda s, x: checkpoint(s.a, x, use_reentrant=False),
            a=nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.LayerNorm(4)),
        )
    ),
    "a part of several names": lambda: rows(
        nn.Sequential(
            *[nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.LayerNorm(4), nn.BatchNorm1d(5))] * 3
        ).eval()
    ),
    "unused parameters": lambda: rows(Net(lambda s, x: x, a=nn.Linear(4, 4), p=parameter(3))),
}


def pooled(layer):
    return Net(lambda s, x: s.h(s.a(x)[0][:, -1]), a=layer, h=nn.Linear(5, 2))


def packed(x):
    return rnn.pack_padded_sequence(
        x, (x[:, 0, 0] > 0) + torch.tensor(2), batch_first=True, enforce_sorted=False
    )


SEQUENCES = {
    "lstm": lambda: pooled(nn.LSTM(4, 5, num_layers=2, batch_first=True)),
    "bidirectional gru": lambda: Net(
        lambda s, x: s.h(s.a(x)[0][:, 0]),
        a=nn.GRU(4, 3, bidirectional=True, batch_first=True),
        h=nn.Linear(6, 2),
    ),
    "rnn, sequence first": lambda: Net(
        lambda s, x: s.h(s.a(x.transpose(0, 1))[0][-1]), a=nn.RNN(4, 5), h=nn.Linear(5, 2)
    ),
    "packed": lambda: Net(
        lambda s, x: s.h(s.a(packed(x))[1][0]), a=nn.GRU(4, 5, batch_first=True), h=nn.Linear(5, 2)
    ),
}


def words(**options):
    net = Net(lambda s, x: s.h(torch.tanh(s.e(x)).flatten(1)), e=nn.Embedding(7, 3, **options))
    net.h = nn.Linear(9, 2)
    return net
