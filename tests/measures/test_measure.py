import os

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lightning_nc
from lightning_nc import Probe, measure
from lightning_nc.functional import (
    class_distance_normalized_variance,
    nearest_class_center_mismatch,
    separation_fuzziness,
    variability_collapse,
)
from tests import architectures

SAMPLES, CLASSES = 60, architectures.CLASSES
Y = torch.arange(SAMPLES) % CLASSES


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6)
        self.relu1, self.relu2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.conv2, self.drop = nn.Conv2d(6, 8, 3), nn.Dropout()
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x, kept=None):
        h1 = self.relu1(self.norm(self.conv1(x)))
        h2 = self.relu2(self.conv2(h1)).mean((2, 3))
        if kept is not None:
            kept.update(input=x, relu1=h1, pooled=h2)
        return self.head(self.drop(h2))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ConvNet()


@pytest.fixture
def images():
    return make_images()


def make_images():
    shift = torch.randn(CLASSES, 3, 10, 10)
    return TensorDataset(torch.randn(SAMPLES, 3, 10, 10) + shift[Y], Y)


POINTS = ["input", "relu1", "relu2"]
SETTINGS = {
    "kept": {},
    "read twice": {"cache_mb": 0},
    # that feature maps do not fit together would pool them
    "in groups": {"cache_mb": 0, "memory_mb": 0.035, "pool": "flatten"},
    "in groups and kept": {"memory_mb": 0.035, "pool": "flatten"},
}


def measured(net, images, pool="auto", **options):
    probe = Probe(images, "data", samples_per_class=None, batch_size=16, **options)
    return measure(net, probe, pool=pool).values


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_gives_what_the_functions_give_on_features_by_hand(net, images, setting):
    kept = {}
    with torch.no_grad():
        net.eval()(images.tensors[0], kept)
        conv2 = torch.relu(net.conv2(kept["relu1"]))
    kept = {"input": kept["input"], "relu1": kept["relu1"], "relu2": conv2, "last": kept["pooled"]}
    features = {name: value.flatten(1) for name, value in kept.items()}
    values = measured(net.train(), images, **SETTINGS[setting])
    for name in POINTS:
        expected = float(separation_fuzziness(features[name], Y))
        # float32 convolutions round differently in batches of another size
        assert values[f"separation_layers/data/{name}"] == pytest.approx(expected, rel=1e-6)
    last = features["last"]
    for key, expected in {
        "nc1": variability_collapse(last, Y),
        "cdnv": class_distance_normalized_variance(last, Y),
        "nc4": nearest_class_center_mismatch(last, Y, net.head.weight, net.head.bias),
    }.items():
        assert values[f"nc/data/{key}"] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_exact_in_float64(net, images, setting):
    net, x = net.double(), images.tensors[0].double()
    kept = {}
    with torch.no_grad():
        net.eval()(x, kept)
    values = measured(net, TensorDataset(x, Y), **SETTINGS[setting])
    for name in ("input", "relu1"):
        expected = float(separation_fuzziness(kept[name].flatten(1), Y))
        assert values[f"separation_layers/data/{name}"] == pytest.approx(expected, rel=1e-12)
    expected = float(variability_collapse(kept["pooled"], Y))
    assert values["nc/data/nc1"] == pytest.approx(expected, rel=1e-12)


def test_all_settings_agree(net, images):
    kept, *others = (measured(net, images, **options) for options in SETTINGS.values())
    for other in others:
        assert other == pytest.approx(kept, rel=1e-12, nan_ok=True)


def test_the_network_runs_once_over_kept_features_and_twice_otherwise(net, images):
    calls = []
    for options in SETTINGS.values():
        runs = []
        with net.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1)):
            measured(net, images, **options)
        calls.append(len(runs))
    first, batches = 2, 4  # to settle what is measured, the first batch runs twice
    kept, twice, grouped, grouped_and_kept = calls
    assert (kept, twice) == (first + batches, first + 2 * batches)
    assert grouped == first + 4 * batches
    assert grouped_and_kept == first + 2 * batches


class Unseeded(nn.Module):
    """Noise of a generator that nobody can seed."""

    def forward(self, x):
        generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(6), "big"))
        return x + torch.randn(x.shape, generator=generator)


@pytest.fixture
def noisy():
    return make_noisy()


def make_noisy():
    hidden = [nn.Linear(300, 8), nn.ReLU(), nn.Tanh()]
    return nn.Sequential(nn.Flatten(), Unseeded(), *hidden, nn.Linear(8, 4))


def test_a_network_random_beyond_all_seeds_is_found_out(noisy, images):
    with pytest.raises(RuntimeError, match=r"'3' changed between the two sweeps.*cache_mb"):
        measured(noisy, images, cache_mb=0)


def test_a_network_random_beyond_all_seeds_can_be_measured_on_kept_features(noisy, images):
    values = measured(noisy, images)
    assert values["separation_layers/data/3"] > 0


def test_a_network_random_within_the_seeds_can_be_read_twice(images):
    class Seeded(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    model = nn.Sequential(nn.Flatten(), Seeded(), nn.ReLU(), nn.Tanh(), nn.Linear(300, 4))
    kept, twice = measured(model, images), measured(model, images, cache_mb=0)
    assert twice == pytest.approx(kept, rel=1e-12, nan_ok=True)


class Reviews(Dataset):
    """Sentences of different length, padded on the right."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        sample = {key: value[0] for key, value in architectures.tokens(1, seed=index).items()}
        sample["attention_mask"] = (torch.arange(6) < 2 + index % 5).long()
        return sample | {"labels": index % CLASSES}


@pytest.fixture
def bert():
    torch.manual_seed(0)
    return architectures.published("Bert").double()


POOLS = {
    "first_token": lambda states, mask: states[:, 0],
    "masked_mean": lambda states, mask: torch.stack(
        [h[m.bool()].mean(0) for h, m in zip(states, mask, strict=True)]
    ),
    "last_token": lambda states, mask: torch.stack(
        [h[m.bool()][-1] for h, m in zip(states, mask, strict=True)]
    ),
}


@pytest.mark.parametrize("pool", POOLS)
def test_a_network_of_sequences_gives_what_the_functions_give_on_its_hidden_states(bert, pool):
    loader = DataLoader(Reviews(), 16)
    values = measure(bert, loader, pool=getattr(lightning_nc, pool)).values
    (batch,) = DataLoader(Reviews(), SAMPLES)
    labels = batch.pop("labels")
    with torch.no_grad():
        output = bert.eval()(**batch, output_hidden_states=True)
        last = bert.bert(**batch).pooler_output
    for layer, states in enumerate(output.hidden_states[1:]):
        features = POOLS[pool](states, batch["attention_mask"])
        expected = float(separation_fuzziness(features, labels))
        key = f"separation_layers/data/bert.encoder.layer.{layer}"
        assert values[key] == pytest.approx(expected, rel=1e-9)
    assert values["nc/data/nc1"] == pytest.approx(
        float(variability_collapse(last, labels)), rel=1e-9
    )
    accuracy = float((output.logits.argmax(1) == labels).double().mean())
    assert values["nc/data/accuracy"] == pytest.approx(accuracy)


def test_an_encoder_without_classifier_is_measured_with_the_classes_seen(images):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(300, 8), nn.ReLU(), nn.Linear(8, 8))
    values = measure(encoder, images, layers=["input", "2", "3"], head=False).values
    assert values["separation_layers/data/3"] > 0
