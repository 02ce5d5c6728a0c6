"""What is said if layers are no sequence, since the law compares each with the one before it."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import EquiSeparation, Probe, measure
from tests import nets
from tests.architectures import CLASSES, Block


class TwoViews(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.head = nn.Sequential(Block(), Block()), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.net(x) + self.net(-x))


class TwoBranches(nn.Module):
    def __init__(self, joined=False):
        super().__init__()
        self.left, self.right = (nn.Sequential(Block(), Block()) for _ in "ab")
        self.head, self.joined = nn.Linear(8, CLASSES), joined

    def forward(self, x):
        left = self.left(x)
        return self.head(left + self.right(left if self.joined else x))


class Detached(TwoViews):
    def forward(self, x):
        return self.head(self.net[1](self.net[0](x).detach()))


def said_of(net, layers, **options):
    data = TensorDataset(torch.randn(20, 8), torch.arange(20) % CLASSES)
    with nets.our_warnings() as said:
        measure(net, Probe(data, "data", **options), measures=[EquiSeparation(layers=layers)])
    return [sentence for sentence in said if "not computed from" in sentence]


@pytest.mark.parametrize(
    ("net", "layers", "pair", "way"),
    [
        (TwoViews(), "blocks", ("net.0-2", "net.1-1"), 'Probe(forward="encoder")'),
        (TwoViews(), ["net.*"], ("net.0-2", "net.1-1"), 'Probe(forward="encoder")'),
        (TwoBranches(), ["left.*", "right.*"], ("right.0", "left.1"), "callback of its own"),
    ],
)
def test_layers_that_are_no_sequence_are_told(net, layers, pair, way):
    (sentence,) = said_of(net, layers)
    after, before = pair
    assert f"'{after}' is not computed from the layer before it, '{before}'" in sentence
    assert way in sentence


@pytest.mark.parametrize(
    ("net", "layers"),
    [
        (TwoBranches(), ["left.*"]),
        (TwoBranches(joined=True), ["left.*", "right.*"]),
        (TwoBranches(), ["left", "left.*", "head"]),  # one contains others, which is told instead
        (Detached(), ["net.*", "head"]),  # the way from the input cannot be followed
    ],
)
def test_nothing_is_said_of_a_sequence(net, layers):
    assert said_of(net, layers) == []


def test_the_way_that_is_named_is_one():
    assert said_of(TwoViews(), "blocks", forward="net") == []
