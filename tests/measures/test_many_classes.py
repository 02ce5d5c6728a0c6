"""Neural collapse of many classes with a head, by the routes of large matrices, at small sizes."""

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.utils.data import TensorDataset

import lightning_nc
from lightning_nc.functional import class_pairs, classifier
from lightning_nc.passes import decisions
from tests import reference

CASES = {
    "more than dimensions": (120, 6, 120, 0),
    "fewer than dimensions": (70, 90, 70, 0),
    "features kept": (120, 6, 120, 100),
    "rows of classes without samples": (80, 6, 100, 0),
}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(class_pairs, "_SIDE", 32)  # classes of which pairs are compared at a time
    monkeypatch.setattr(classifier, "_LARGE", 0)  # decisions in float32 first
    monkeypatch.setattr(classifier, "_ROWS", 200)  # numbers in rows in float64 at a time
    monkeypatch.setattr(decisions, "_AT_ONCE", 2000)  # logits at a time


def network_and_data(K, d, rows):
    """Features near the rows of the head, some of which are almost tied; labels of K classes."""
    model = nn.Sequential(nn.Identity(), nn.Linear(d, rows))
    labels = torch.arange(3 * K) % K
    with torch.no_grad():
        model[1].weight[1::2] = model[1].weight[::2] * (1 + 1e-6)
        h = model[1].weight[labels] + torch.randn(3 * K, d) / d
    return model.eval(), TensorDataset(h, labels)


@pytest.mark.filterwarnings("ignore:.* the probe has samples of 80 of these classes")
@pytest.mark.parametrize("case", CASES)
def test_many_classes_measure_as_the_formulas_say(case, small_blocks):
    K, d, rows, cache_mb = CASES[case]
    model, data = network_and_data(K, d, rows)
    probe = lightning_nc.Probe(
        data, "p", samples_per_class=None, batch_size=64, cache_mb=cache_mb, seed=1
    )
    measured = lightning_nc.measure(model, probe, measures=[lightning_nc.NeuralCollapse()])
    features, labels = (t.numpy() for t in data.tensors)
    W, b = (p.detach().double().numpy() for p in model[1].parameters())
    # in float64, as the network is not
    expected = reference.collapse_values(features.astype("float64"), labels, W[:K], b[:K])
    if rows > K:  # all rows decide
        decided = reference.decisions(features, W, b)
        expected["nc4"] = reference.decided_mismatch(features, labels, decided)
        expected["accuracy"] = (decided == labels).mean()
    for name, value in expected.items():
        assert_allclose(measured.values[f"nc/p/{name}"], value, rtol=1e-7, err_msg=name)


def test_matrices_of_classes_are_prepared_once_however_many_batches_there_are(
    small_blocks, monkeypatch
):
    made = []

    class Counted(classifier.LinearDecision):
        def __init__(self, *arguments):
            made.append(len(arguments[0]))
            super().__init__(*arguments)

    for module in (classifier, decisions):
        monkeypatch.setattr(module, "LinearDecision", Counted)
    model, data = network_and_data(60, 4, 60)
    probe = lightning_nc.Probe(data, "p", samples_per_class=None, batch_size=10, cache_mb=0)
    lightning_nc.measure(model, probe, measures=[lightning_nc.NeuralCollapse()])
    assert made == [60, 60]  # the rows of the head, and the class means
