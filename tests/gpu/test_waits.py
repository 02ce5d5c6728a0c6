"""How often the host waits for the device: as often per batch, whatever is measured."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import lightning_nc
from tests.gpu import syncs
from tests.gpu.device import device, needs_cuda, only_our_warnings

pytestmark = [only_our_warnings, needs_cuda("the host waits for it")]

BATCH = 12


class Setting(NamedTuple):
    """What is measured how, and how often the host waits for each batch: to read its labels."""

    waits: int
    options: Mapping[str, object] = MappingProxyType({})
    cache_mb: int = 100
    classes: int = 3


SETTINGS = {
    "two sweeps, the second from the cache": Setting(1),
    "two sweeps of the network": Setting(2, cache_mb=0),
    "many classes": Setting(1, classes=400),
    "one sweep": Setting(1, {"measures": lightning_nc.NextTokenLaw()}),
}


def measured(setting, layers, batches):
    """Where the host waits in a measurement of a network of so many layers."""
    torch.manual_seed(0)
    hidden = [part for _ in range(layers) for part in (nn.Linear(6, 6), nn.Tanh())]
    model = nn.Sequential(*hidden, nn.Linear(6, setting.classes)).to(device()).eval()
    labels = torch.arange(BATCH * batches) % setting.classes
    data = TensorDataset(torch.randn(len(labels), 6), labels)
    probe = lightning_nc.Probe(
        data, "p", samples_per_class=None, batch_size=BATCH, cache_mb=setting.cache_mb
    )
    return syncs.places(partial(lightning_nc.measure, model, probe, **setting.options))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_host_waits_as_often_in_each_batch_however_many_layers_there_are(name):
    for layers in (2, 5):
        few, many = (measured(SETTINGS[name], layers, batches) for batches in (40, 44))
        found = syncs.per_batch(few, many, batches=4)
        assert sum(found.values()) == SETTINGS[name].waits, found


def test_the_host_waits_a_fixed_number_of_times_for_each_layer():
    setting = SETTINGS["two sweeps, the second from the cache"]
    few, more, most = (sum(measured(setting, layers, 3).values()) for layers in (2, 5, 8))
    assert most - more == more - few
    assert (more - few) / 3 <= 10
