"""Two measurements of the same weights agree to the last bit, whatever the settings of torch."""

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_nc import functional, metrics
from lightning_nc.measures.measure_network import measure
from lightning_nc.passes import geometry_pass
from lightning_nc.passes.feature_cache import FeatureCache
from lightning_nc.passes.probe import Probe
from tests.gpu import networks
from tests.gpu.device import device, on_cuda, only_our_warnings
from tests.gpu.given import clusters
from tests.traces import difference

pytestmark = only_our_warnings

CLASSES = [10, 100, 1000]
EACH = {10: 60, 100: 20, 1000: 4}


def network(classes):
    return networks.mlp(classes, width=128).to(device()).eval()


@pytest.mark.parametrize("cache_mb", [512, 0])
@pytest.mark.parametrize("classes", CLASSES)
def test_a_measurement_is_the_same_twice(classes, cache_mb):
    net, data = network(classes), TensorDataset(*clusters(classes, EACH[classes], d=6))
    probe = Probe(data, "p", samples_per_class=None, batch_size=250, cache_mb=cache_mb)
    layers = ["entry", "first", "features"]  # some are narrower than the number of classes
    first, second = (measure(net, probe, layers=layers) for _ in range(2))
    assert difference(first.values, second.values) is None
    assert difference(first.arrays, second.arrays) is None


def test_features_kept_on_the_host_give_the_same_bits(monkeypatch):
    net, data = network(10), TensorDataset(*clusters(10, EACH[10], d=6))
    probe = Probe(data, "p", samples_per_class=None, batch_size=250)
    on_device = measure(net, probe, layers=["entry", "first", "features"])
    monkeypatch.setattr(geometry_pass, "belongs_on_host", lambda megabytes, free: True)
    kept = []
    keep = FeatureCache.keep
    monkeypatch.setattr(FeatureCache, "keep", lambda *args: kept.append(args[0]) or keep(*args))
    on_host = measure(net, probe, layers=["entry", "first", "features"])
    assert difference(on_device.values, on_host.values) is None
    features = [each for cache in kept for each in cache._features.values()]
    assert features
    for each in features:
        assert each.device.type == "cpu"
        assert each.is_pinned() == on_cuda()


@pytest.mark.parametrize("classes", CLASSES)
def test_functions_and_metrics_are_the_same_twice(classes):
    h, y = (t.to(device()) for t in clusters(classes, EACH[classes], d=48))
    results = []
    for _ in range(2):
        metric = metrics.SeparationFuzziness(classes).to(device())
        collapse = metrics.NeuralCollapse(classes).to(device())
        for part in torch.arange(len(y), device=y.device).split(300):
            metric.update(h[part], y[part])
            collapse.update(h[part], y[part])
        found = [*functional.class_geometry(h, y)[:6], *functional.class_moments(h, y, classes)]
        results.append([*found, metric.compute(), *collapse.compute().values()])
    assert difference(*results) is None


def test_gradients_are_compared_to_the_same_bits_twice():
    images, _ = networks.small_images(5, each=4)
    net, x = networks.convnet(classes=5).to(device()).eval(), images.to(device())
    torch.use_deterministic_algorithms(True)  # for the network's own backward pass
    kernels = [functional.gradient_kernel(net, x) for _ in range(2)]
    assert difference(*kernels) is None
