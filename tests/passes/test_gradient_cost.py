"""What comparing gradients is said to cost, against what it costs."""

import itertools
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc.passes import gradient_cost, gradient_pass
from lightning_nc.passes.gradient_pass import GradientPass
from lightning_nc.passes.request import KernelRequest, Request
from lightning_nc.tangent import checked_pass
from tests.passes.isolated import ask

CLASSES = 10
DATA = TensorDataset(torch.randn(100, 3, 16, 16), torch.arange(100) % CLASSES)


class Recurrent(nn.Module):
    """Reads the rows of images; its gradients take a backward pass for each sample."""

    def __init__(self):
        super().__init__()
        self.rows, self.head = nn.GRU(48, 96, batch_first=True), nn.Linear(96, CLASSES)

    def forward(self, x):
        return self.head(self.rows(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])


def convolutional():
    hidden = [nn.Conv2d(3, 48, 3), nn.ReLU(), nn.Conv2d(48, 96, 3, stride=2), nn.ReLU()]
    top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, CLASSES)]
    return nn.Sequential(*hidden, *top)


CASES = {
    "all outputs": (convolutional, "all", False),
    "one output, and steps on the loss": (convolutional, 1, True),
    "a backward pass for each sample": (Recurrent, 2, False),
}


@pytest.fixture
def said(monkeypatch):
    """The seconds that are announced, of measurements of any length."""
    told, duration = [], gradient_cost.duration
    monkeypatch.setattr(gradient_cost, "_LONG", 0.0)
    monkeypatch.setattr(gradient_cost, "duration", lambda s: told.append(s) or duration(s))
    return told


def compared(make, outputs, steps):
    request = Request(kernel=KernelRequest(8, CLASSES, outputs, None, steps, None))
    torch.manual_seed(0)
    (answer,) = ask([request], make(), kind=GradientPass, source=DATA, batch_size=50)[1]
    return answer.kernel.kernel


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_before_is_what_it_costs_within_a_factor_of_two(name, said, monkeypatch):
    clock = time.process_time  # so that other programs count less
    monkeypatch.setattr(checked_pass, "perf_counter", clock)
    monkeypatch.setattr(gradient_pass, "time", SimpleNamespace(perf_counter=clock))
    compared(*CASES[name])  # what torch loads and sets up at first is not the cost of a measurement
    started = clock()
    assert compared(*CASES[name]).shape == (80, 80)
    taken = clock() - started
    _, seconds = said
    assert taken / 2 < seconds < 2 * taken


def test_steps_on_the_loss_take_a_check_of_their_own(said, monkeypatch):
    clock = SimpleNamespace(perf_counter=itertools.count(0, 1000).__next__)  # a check takes 1000 s
    monkeypatch.setattr(gradient_pass, "time", clock)
    for steps in (False, True):
        compared(convolutional, 1, steps)
    without, seconds = said
    assert 1000 < without < 2000 < seconds < 3000
