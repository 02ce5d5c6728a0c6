"""Logged values against the formulas, on the very features that were measured."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import NeuralCollapse
from lightning_nc.callbacks.equi_separation import EquiSeparation
from lightning_nc.callbacks.local_elasticity import LocalElasticity
from lightning_nc.callbacks.minority_collapse import MinorityCollapse
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.passes.probe import Probe
from tests import reference
from tests.gpu import expected, networks
from tests.gpu.device import needs_cuda, only_our_warnings, tensor_float_32
from tests.gpu.given import clusters
from tests.gpu.runs import fit

pytestmark = only_our_warnings

MINORITY, COUNTS = [2, 3], [90, 90, 5, 4]


class Kept:
    """Features of layers as a measurement received them, sample by sample."""

    def __init__(self, data):
        self.inputs, self.labels = (t.double() for t in data.tensors)
        self.rows = {}  # features of each sample, by layer
        self.samples = None  # indices of the samples in the current batch

    def layers(self, names):
        return {f"net.{name}": self.keeping(name) for name in names}

    def keeping(self, name):
        def keep(output):
            features = output.detach().flatten(1)
            exact = features.double().cpu()
            if name == "entry":
                distances = exact[:, None] - self.inputs.flatten(1)
                self.samples = distances.abs().sum(2).argmin(1)
            known = self.rows.setdefault(
                name, torch.full((len(self.labels), exact.shape[1]), torch.nan).double()
            )
            known[self.samples] = exact
            return features

        return keep


def measure(tmp_path, net, data, layers, cache_mb=512, class_counts=COUNTS, **options):
    """Train for an epoch and measure; return the module, the kept features and all values."""
    kept = Kept(data)
    probe = Probe(data, "p", samples_per_class=None, batch_size=8, cache_mb=cache_mb)
    common = {"probe": probe, "epochs": [1], "figures": False, "on_error": "raise"}
    callbacks = [
        EquiSeparation(layers=kept.layers(layers), **common),
        NeuralCollapse(**common),
        MinorityCollapse(minority=MINORITY, class_counts=class_counts, **common),
    ]
    _, module = fit(tmp_path, net, data, callbacks, max_epochs=1, **options)
    values = {k: v for each in callbacks for k, v in each.history[-1].values.items()}
    return module, kept, values


def check(module, kept, values, layers, last="features", class_counts=COUNTS):
    """All values but the bookkeeping, to seven digits; none is logged without an expectation."""
    h, y = kept.rows[last].numpy(), kept.labels.long().numpy()
    head = module.net.head
    W, b = (p.detach().double().cpu().numpy() for p in (head.weight, head.bias))
    D = [reference.separation_fuzziness(kept.rows[name].numpy(), y) for name in layers]
    wanted = {f"separation_layers/p/net.{name}": d for name, d in zip(layers, D, strict=True)}
    for family, quantities in (
        ("separation", reference.separation_values(D)),
        ("nc", reference.collapse_values(h, y, W, b)),
        ("minority", reference.minority_values(h, y, W, b, class_counts, MINORITY)),
    ):
        wanted |= {f"{family}/p/{name}": value for name, value in quantities.items()}
    book = {row.name for row in BOOKKEEPING}
    assert {key for key in values if key.split("/")[-1] not in book} == set(wanted)
    for key, value in wanted.items():
        assert values[key] == pytest.approx(float(value), rel=1e-7, abs=1e-18), key


PRECISIONS = [
    "32-true",
    "bf16-mixed",
    "64-true",
    pytest.param("16-mixed", marks=needs_cuda("fp16-mixed")),
]
LAYERS = ("entry", "hidden", "features")


@pytest.mark.parametrize("cache_mb", [512, 0])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_vectors_are_measured_as_the_formulas_say(precision, cache_mb, tmp_path):
    data = TensorDataset(*clusters(4, 9, d=6))
    found = measure(tmp_path, networks.mlp, data, LAYERS, cache_mb, precision=precision)
    check(*found, LAYERS)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", [nn.Identity, networks.ChannelsLast])
def test_images_are_measured_as_the_formulas_say(layout, precision, tmp_path):
    def net():
        memory_format = torch.preserve_format if layout is nn.Identity else torch.channels_last
        return networks.convnet(layout=layout).to(memory_format=memory_format)

    data = TensorDataset(*networks.small_images())
    found = measure(tmp_path, net, data, LAYERS, precision=precision)
    check(*found, LAYERS)


def test_training_samples_are_counted_on_the_device(tmp_path):
    inputs, labels = clusters(4, 9, d=6)
    kept = (labels < 2) | (torch.arange(36) % 3 == 0)  # a third of the minority samples
    data = TensorDataset(inputs[kept], labels[kept])
    found = measure(tmp_path, networks.mlp, data, LAYERS, class_counts=None)
    check(*found, LAYERS, class_counts=labels[kept].bincount().tolist())


@pytest.mark.parametrize("allowed", [True, False])
def test_values_are_exact_whether_the_network_computes_in_tf32_or_not(allowed, tmp_path):
    with tensor_float_32(allowed):
        data = TensorDataset(*networks.small_images())
        found = measure(tmp_path, networks.convnet, data, LAYERS)
    check(*found, LAYERS)


@pytest.mark.parametrize("offset", [0, 30])
def test_collapsed_features_are_measured_as_exactly(offset, tmp_path):
    centres, labels = clusters(4, 9, d=6)
    centres = torch.stack([centres[labels == k].mean(0) for k in range(4)]).double()
    noise = torch.randn(36, 6, generator=torch.Generator().manual_seed(9))
    data = TensorDataset(offset + centres[labels] + 1e-6 * noise.double(), labels)
    layers = (*LAYERS, "shift")
    net = partial(networks.mlp, offset=offset)
    module, kept, values = measure(tmp_path, net, data, layers, precision="64-true")
    check(module, kept, values, layers, last="shift")
    assert 1e-14 < values["separation_layers/p/net.entry"] < 1e-11


@pytest.mark.parametrize(
    ("precision", "rel"),
    [("64-true", 1e-7), ("32-true", 1e-3), ("bf16-mixed", 1e-3)],
)
def test_local_elasticity_is_what_backward_passes_one_by_one_give(precision, rel, tmp_path):
    data = TensorDataset(*networks.small_images(classes=3, each=2))
    callback = LocalElasticity(
        samples_per_class=2,
        relative_similarity=True,
        probe=Probe(data, "p", samples_per_class=None),
        epochs=[1],
        figures=False,
        on_error="raise",
    )
    net = partial(networks.convnet, classes=3)
    _, module = fit(tmp_path, net, data, [callback], max_epochs=1, precision=precision)
    exact = copy.deepcopy(module.net).cpu().double().eval()
    x, y = data.tensors[0].double(), data.tensors[1]
    g, f = expected.gradients(exact, x), exact(x).detach()
    K = expected.kernel(g)
    moved = expected.changes(g, expected.loss_gradients(f, y))
    steps = expected.effects(expected.relative_similarity(moved), y)
    wanted = {
        "relative_ratio": expected.relative_ratio(K, y),
        "relative_ratio_self_pairs": expected.relative_ratio(K, y, self_pairs=True),
        **dict(zip(("intra", "inter"), expected.effects(K / 3, y), strict=True)),
        "relative_similarity_intra": steps[0],
        "relative_similarity_inter": steps[1],
    }
    values = callback.history[-1].values
    for name, value in wanted.items():
        assert values[f"elasticity/p/{name}"] == pytest.approx(float(value), rel=rel), name


def test_a_wrong_label_would_be_noticed(tmp_path):
    data = TensorDataset(*clusters(4, 9, d=6))
    module, kept, values = measure(tmp_path, networks.mlp, data, LAYERS)
    kept.labels[0] = (kept.labels[0] + 1) % 4
    with pytest.raises(AssertionError):
        check(module, kept, values, LAYERS)
