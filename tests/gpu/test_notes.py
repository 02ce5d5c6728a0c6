"""What is undefined, and what is said of it, is the same on every device."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import EquiSeparation, LocalElasticity, MinorityCollapse, NeuralCollapse, measure
from tests.gpu.device import device, needs_cuda
from tests.gpu.given import clusters

CASES = {
    "a minority of one class": [3],
    "a majority of one class": [1, 2, 3],
    "two classes": [1],
    "rows that are not finite": [2, 3],
    "a row of zeros": [2, 3],
    "classes without variance": [2, 3],
    "features that are all alike": [2, 3],
    "features that are not finite": [2, 3],
    "a class of one sample": [2, 3],
    "a class without samples": [2, 3],
    "classes that are not the first": [5, 6],
}


def given(case):
    """A network in float64, and its data."""
    torch.manual_seed(2)
    K = 2 if case == "two classes" else 4
    x, y = clusters(K, 9, d=6)
    kept = torch.ones(len(y), dtype=torch.bool)
    x, first = x.double(), 3 if case == "classes that are not the first" else 0
    rows = K + first + (case == "a class without samples")
    layers = [(nn.Linear(6, 6), nn.Tanh()) for _ in range(3)]
    net = nn.Sequential(*sum(layers, ()), nn.Linear(6, rows)).double()
    with torch.no_grad():
        if case == "rows that are not finite":
            net[-1].weight[3] = math.inf
        elif case == "a row of zeros":
            net[-1].weight[3] = 0
        elif case == "classes without variance":
            x = torch.stack([x[y == k].mean(0) for k in range(K)])[y]
        elif case == "features that are all alike":
            net[4].weight.zero_()
        elif case == "features that are not finite":
            net[4].weight[0, 0] = math.nan
        elif case == "a class of one sample":
            kept = (y > 0) | (torch.arange(len(y)) < 1)
    return net, TensorDataset(x[kept], (y + first)[kept])


def found(case, where):
    """Values and notes of each family on a device, or why there are none."""
    net, data = given(case)
    counts = [90, 80, 40, 9, 8, 7, 6]
    families = {
        "separation": EquiSeparation(),
        "nc": NeuralCollapse(layers="blocks"),
        "minority": MinorityCollapse(minority=CASES[case], class_counts=counts),
        "elasticity": LocalElasticity(samples_per_class=4),
    }
    values, said = {}, {}
    for name, family in families.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                values |= measure(copy.deepcopy(net).to(where), data, measures=[family]).values
            except (ValueError, TypeError) as error:
                said[name] = str(error)
            else:
                said[name] = [str(each.message) for each in caught]
    return {key: value for key, value in values.items() if "seconds" not in key}, said


@needs_cuda("the CPU would be compared with itself")
@pytest.mark.parametrize("case", CASES)
def test_what_is_undefined_is_said_as_on_the_cpu(case):
    (values, said), (expected, of_cpu) = found(case, device()), found(case, "cpu")
    assert said == of_cpu
    assert values == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)
