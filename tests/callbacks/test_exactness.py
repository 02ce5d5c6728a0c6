"""What callbacks log against the slow reference, on features collected by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lightning_nc import EquiSeparation, NeuralCollapse, Probe
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from tests import nets, precise, reference

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

BALANCED, IMBALANCED = (12, 12, 12), (20, 9, 5)


def train(tmp_path, data, net, batch_norm="eval", **options):
    """Train, and return the module and both callbacks, measured at the end."""
    probe = Probe(data, "p", samples_per_class=None, batch_norm=batch_norm, batch_size=8)
    common = {"probe": probe, "figures": False, "on_error": "raise"}
    callbacks = [EquiSeparation(**common), NeuralCollapse(layers="blocks", **common)]
    run = nets.fit(tmp_path, callbacks, data=data, net=net, batch_size=8, **options)
    return run.lightning_module, callbacks


def collect(module, callback, data, train_mode=False):
    """The outputs of all children of the network, in the batches of the probe; and the labels."""
    (plan,) = callback.record.plans.values()
    net = copy.deepcopy(module.net).train(train_mode)
    outputs = {name: [] for name in ("input", *(name for name, _ in net.named_children()))}
    for name, layer in net.named_children():

        def hook(_, args, output, name=name):
            outputs[name].append(output.detach().flatten(1).double().numpy())

        layer.register_forward_hook(hook)
    labels = []
    dtype = next(net.parameters()).dtype
    for batch in plan.batches:
        inputs = data.tensors[0][batch.indices].to(dtype)
        outputs["input"].append(inputs.flatten(1).double().numpy())
        labels.append(data.tensors[1][batch.indices].numpy())
        with torch.no_grad():
            net(inputs)
    assert sum(map(len, labels)) == len(data)
    features = {name: np.concatenate(parts) for name, parts in outputs.items()}
    return features, np.concatenate(labels)


def expected_collapse(features, labels, points, last, head):
    W, b = (p.detach().double().numpy() for p in (head.weight, head.bias))
    decided = reference.decisions(features[last], W, b)
    return {
        f"nc/p/{name}": value
        for name, value in reference.collapse_values(features[last], labels, W, b).items()
    } | {
        f"nc_layers/p/{point}/{name}": value
        for point, child in points.items()
        for name, value in reference.layer_collapse_values(features[child], labels, decided).items()
    }


def expected_separation(features, labels, points, fuzziness=reference.separation_fuzziness):
    D = np.array([fuzziness(features[child], labels) for child in points.values()])
    law = reference.separation_values(D)
    return {f"separation/p/{name}": value for name, value in law.items()} | {
        f"separation_layers/p/{name}": value for name, value in zip(points, D, strict=True)
    }


def assert_close(values, expected, rel=1e-7):
    """All that is logged is expected, and nothing is logged without an independent expectation."""
    book = {row.name for row in BOOKKEEPING}
    logged = {key for key in values if key.split("/")[-1] not in book}
    assert logged == set(expected)
    for key, value in expected.items():
        assert values[key] == pytest.approx(value, rel=rel, abs=1e-13), key


def check(module, callbacks, data, points, last, head, train_mode=False):
    separation, collapse = callbacks
    features, labels = collect(module, separation, data, train_mode)
    assert_close(separation.history[-1].values, expected_separation(features, labels, points))
    expected = expected_collapse(features, labels, points, last, head)
    assert_close(collapse.history[-1].values, expected)
    arrays = separation.history[-1].arrays["class_fuzziness"]
    for row, child in zip(arrays, points.values(), strict=True):
        np.testing.assert_allclose(
            row, reference.class_separation_fuzziness(features[child], labels), rtol=1e-7
        )


@pytest.mark.parametrize("counts", [BALANCED, IMBALANCED])
@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
def test_a_convnet_is_measured_as_the_reference_does(counts, batch_norm, tmp_path):
    data = nets.images(counts)
    module, callbacks = train(tmp_path, data, nets.convnet(), batch_norm)
    points = {"input": "input", "net.2": "2", "net.5": "5"}
    check(module, callbacks, data, points, "6", module.net[7], train_mode=batch_norm == "batch")


@pytest.mark.parametrize("cache_mb", [512, 0])
def test_the_running_statistics_and_those_of_batches_differ(cache_mb, tmp_path):
    data = nets.images(IMBALANCED)
    module, (separation, _) = train(tmp_path, data, nets.convnet(), "eval")
    points = {"input": "input", "net.2": "2", "net.5": "5"}
    wrong, labels = collect(module, separation, data, train_mode=True)
    with pytest.raises(AssertionError):
        assert_close(separation.history[-1].values, expected_separation(wrong, labels, points))


class Shift(nn.Module):
    """Moves all features away from the origin."""

    def forward(self, x):
        return x + 30


@pytest.mark.parametrize("counts", [BALANCED, IMBALANCED])
def test_features_far_from_the_origin_are_measured_as_exactly(counts, tmp_path):
    data = nets.vectors(counts, offset=30)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), Shift(), nn.Identity(), nn.Linear(12, 3))
    separation = {"input": "input", "net.2": "2"}
    probe = Probe(data, "p", samples_per_class=None, batch_size=8)
    common = {"layers": ["input", "net.1", "net.2"], "probe": probe, "figures": False}
    callbacks = [EquiSeparation(**common), NeuralCollapse(**common)]
    run = nets.fit(tmp_path, callbacks, data=data, net=net)
    separation = {"input": "input", "net.1": "1", "net.2": "2"}
    check(run.lightning_module, callbacks, data, separation, "3", net[4])


@pytest.mark.parametrize("offset", [0, 30])
@pytest.mark.parametrize("counts", [BALANCED, IMBALANCED])
def test_collapsed_features_are_measured_as_exactly(counts, offset, tmp_path):
    inputs, labels = nets.vectors(counts, spread=0.0, offset=offset).tensors
    noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(9))
    data = torch.utils.data.TensorDataset(inputs.double() + 1e-6 * noise.double(), labels)
    net = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(), nn.Linear(8, 7), nn.LeakyReLU())
    net.append(nn.Linear(7, 3))
    module, callbacks = train(tmp_path, data, net, precision="64-true")
    points = {"input": "input", "net.1": "1", "net.3": "3"}
    check(module, callbacks, data, points, "3", module.net[4])
    features, y = collect(module, callbacks[0], data)
    exact = expected_separation(features, y, points, precise.separation_fuzziness)
    assert 1e-14 < exact["separation_layers/p/input"] < 1e-11
    assert_close(callbacks[0].history[-1].values, exact)
    nc1 = precise.variability_collapse(features["3"], y)
    assert callbacks[1].history[-1].values["nc/p/nc1"] == pytest.approx(nc1, rel=1e-7)


def test_the_reference_notices_a_wrong_label(tmp_path):
    data = nets.images(BALANCED)
    module, (separation, _) = train(tmp_path, data, nets.convnet())
    features, labels = collect(module, separation, data)
    labels[0] = (labels[0] + 1) % 3
    points = {"input": "input", "net.2": "2", "net.5": "5"}
    with pytest.raises(AssertionError):
        assert_close(separation.history[-1].values, expected_separation(features, labels, points))
