"""Networks on several devices are measured like one on the CPU."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import lightning_nc
from tests.gpu.device import device, needs_cuda, only_our_warnings
from tests.gpu.given import clusters

pytestmark = [only_our_warnings, needs_cuda("a network in part on the host")]

CLASSES, TOKENS, WIDTH = 4, 5, 6
LAYERS = ["entry", "first", "second"]


class InParts(nn.Module):
    """Two hidden layers and a head, each of which fetches its input to its own device."""

    def __init__(self, *places):
        super().__init__()
        torch.manual_seed(3)
        self.entry = nn.Identity()
        self.first = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh())
        self.head = nn.Linear(7, CLASSES)
        self.places = places
        for part, place in zip((self.first, self.second, self.head), places, strict=True):
            part.double().to(place)
        self.eval()

    def forward(self, x, attention_mask=None):
        h = self.entry(x)
        for part, place in zip((self.first, self.second, self.head), self.places, strict=True):
            h = part(h.to(place))
        return h


class Sequences(torch.utils.data.Dataset):
    """Sequences of different lengths, each of one class, with a mask."""

    def __init__(self):
        self.inputs, self.targets = clusters(CLASSES, 9, d=TOKENS * WIDTH)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        mask = (torch.arange(TOKENS) <= index % TOKENS).long()
        x = self.inputs[index].double().unflatten(0, (TOKENS, WIDTH))
        return {"x": x, "attention_mask": mask, "labels": self.targets[index]}


def vectors():
    inputs, labels = clusters(CLASSES, 9, d=WIDTH)
    return TensorDataset(inputs.double(), labels)


def positions():
    inputs, labels = clusters(CLASSES, 5 * TOKENS, d=WIDTH)
    return TensorDataset(*(t.unflatten(0, (-1, TOKENS)) for t in (inputs.double(), labels)))


def of_layers(**options):
    collapse = lightning_nc.NeuralCollapse(layers=LAYERS, **options)
    return lightning_nc.EquiSeparation(layers=LAYERS, **options), collapse


SETTINGS = {
    "layers and classifier": (vectors, of_layers),
    "features without geometry": (positions, lambda: lightning_nc.NextTokenLaw(layers=LAYERS)),
    "gradients": (
        vectors,
        lambda: lightning_nc.LocalElasticity(samples_per_class=2, relative_similarity=True),
    ),
    "the last layer": (
        vectors,
        lambda: lightning_nc.LocalElasticity(samples_per_class=2, parameters="last_layer"),
    ),
    "positions as samples": (positions, of_layers),
    "the mean of tokens": (Sequences, lambda: of_layers(pool=lightning_nc.masked_mean)),
    "the last token": (Sequences, lambda: of_layers(pool=lightning_nc.last_token)),
}


def found(setting, cache_mb, *places):
    data, measures = SETTINGS[setting]
    probe = lightning_nc.Probe(data(), "p", samples_per_class=None, cache_mb=cache_mb, batch_size=8)
    values = lightning_nc.measure(InParts(*places), probe, measures=measures()).values
    return {key: value for key, value in values.items() if "seconds" not in key}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("cache_mb", [100, 0])
@pytest.mark.parametrize("first_on_card", [True, False])
def test_a_network_on_several_devices_is_measured_like_one_on_the_cpu(
    first_on_card, cache_mb, setting
):
    card, host = device(), torch.device("cpu")
    places = (card, host, card) if first_on_card else (host, card, host)
    wanted = found(setting, cache_mb, host, host, host)
    assert any(value == value for value in wanted.values())
    assert found(setting, cache_mb, *places) == pytest.approx(wanted, rel=1e-9, nan_ok=True)
