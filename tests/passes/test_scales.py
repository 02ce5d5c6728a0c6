"""A network in float64 gives the same values at any scale of its features and of its head."""

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import MinorityCollapse, NeuralCollapse, Probe, measure
from lightning_nc.measures.equi_separation import SeparationMeasure

LABELS = torch.arange(60) % 4


def values(of_features, of_head, cache_mb=512.0):
    torch.manual_seed(0)
    inputs = torch.randn(60, 6, dtype=torch.float64) + nn.functional.one_hot(LABELS, 6)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double().requires_grad_(False)
    for parameter in net[0].parameters():
        parameter.mul_(of_features)
    net[2].weight.mul_(of_head)
    net[2].bias.mul_(of_head * of_features)
    measures = [
        SeparationMeasure(layers=["0", "1"]),
        NeuralCollapse(),
        MinorityCollapse(minority=[0, 1], class_counts=[5, 5, 20, 30]),
    ]
    probe = Probe(TensorDataset(inputs, LABELS), "data", cache_mb=cache_mb)
    with pytest.warns(RuntimeWarning, match="r is undefined"):
        found = measure(net, probe, measures=measures).values
    return {key: value for key, value in found.items() if "energy" not in key}


@pytest.mark.parametrize("cache_mb", [512.0, 0.0])
@pytest.mark.parametrize("exponents", [(600, -600), (-600, 600), (300, 300), (-300, -300)])
def test_values_do_not_depend_on_the_scale(exponents, cache_mb):
    of_features, of_head = (2.0**exponent for exponent in exponents)
    found, expected = values(of_features, of_head, cache_mb=cache_mb), values(1.0, 1.0)
    assert len(found) > 15
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert_allclose(found[key], value, rtol=1e-9, atol=1e-12, err_msg=key)
