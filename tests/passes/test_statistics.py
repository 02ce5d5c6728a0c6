"""Sums that a measure declares are added up once, over batches, sweeps and processes."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_nc import Evaluation, Measure, Probe, Quantity, Request, Statistic, measure
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.statistics import GEOMETRY, ResidualSums
from tests import nets
from tests.processes import run_processes


class Scatter(Statistic):
    """Products of the features about their class means."""

    name = "scatter"

    def shape(self, K, d):
        return d, d

    def of(self, batch):
        return batch.residuals.mT @ batch.residuals


class Largest(Statistic):
    """How many features of each class are above 1, in the first sweep."""

    name, second_sweep = "largest", False

    def shape(self, K, d):
        return K, d

    def of(self, batch):
        return batch.by_class(batch.features > 1)


def effective_rank(geometry):
    """exp of the entropy of the singular values of class-centred features (Roy & Vetterli 2007)."""
    squares = torch.linalg.eigvalsh(geometry.statistics["scatter"]).clamp(min=0)
    p = squares.sqrt() / squares.sqrt().sum()
    return torch.special.entr(p).sum().exp()


class EffectiveRank(Measure):
    """A measure of a user's own: of each layer, the number of directions in use within classes."""

    family, title, question = "rank", "Effective rank", "How many directions do classes fill?"
    quantities = (Quantity("fall", "", "Fall", "Of the last layer by that of the first.", of=None),)
    layer_quantities = (
        Quantity("", "", "Effective rank", "Of class-centred features.", of=effective_rank),
    )

    def request(self):
        return Request(layers=["input", "2", "6"], statistics=(Scatter(),))


def expected_rank(features, labels):
    """From the singular values of the matrix of centred features itself."""
    h = np.asarray(features, np.float64)
    means = np.stack([h[labels == k].mean(0) for k in range(labels.max() + 1)])
    s = np.linalg.svd(h - means[labels], compute_uv=False)
    p = s[s > 0] / s.sum()
    return math.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize("cache_mb", [512, 0])
def test_the_effective_rank_of_layers_is_that_of_their_centred_features(cache_mb):
    net, data = nets.mlp().eval(), nets.vectors()
    probe = Probe(data, "mine", samples_per_class=None, batch_size=7, cache_mb=cache_mb)
    values = measure(net, probe, measures=[EffectiveRank()]).values
    assert list(values) == [f"rank_layers/mine/{layer}" for layer in ("input", "2", "6")]
    x, labels = data.tensors
    for layer, end in (("input", 0), ("2", 3), ("6", 7)):
        h = net[:end](x).detach()
        expected = expected_rank(h, labels.numpy())
        assert values[f"rank_layers/mine/{layer}"] == pytest.approx(expected, rel=1e-7)


def answered(request, processes=None, cache_mb=512):
    torch.manual_seed(3)
    net, data = nets.mlp().eval(), nets.vectors()
    probe = Probe(data, "mine", samples_per_class=None, batch_size=7, cache_mb=cache_mb)
    one_pass = GeometryPass(
        plain_runner(net), lambda: data, probe, request, processes or Processes()
    )
    return one_pass.run()


def test_a_statistic_that_two_measures_want_is_taken_once_and_given_to_both(monkeypatch):
    calls = []

    class Counted(Scatter):
        def of(self, batch):
            calls.append(len(batch.labels))
            return super().of(batch)

    two = [Request(layers=["2"], statistics=(Counted(),)) for _ in range(2)]
    first, second = answered(two)
    assert sum(calls) == 30
    assert first.layers["2"].statistics["scatter"].shape == (12, 12)
    assert torch.equal(*(a.layers["2"].statistics["scatter"] for a in (first, second)))


def test_a_statistic_is_taken_at_the_layers_of_its_own_request_alone():
    first, second = answered(
        [Request(layers=["2"]), Request(layers=["6"], statistics=(Largest(),))]
    )
    assert set(first.layers["2"].statistics) == set()
    assert set(second.layers["6"].statistics) == {"largest"}


def test_statistics_of_the_first_sweep_are_there_too():
    (answer,) = answered([Request(layers=["2"], statistics=(Largest(),))])
    torch.manual_seed(3)
    h = nets.mlp().eval()[:3](nets.vectors().tensors[0])
    expected = [(h[nets.vectors().tensors[1] == k] > 1).sum(0).tolist() for k in range(3)]
    assert answer.layers["2"].statistics["largest"].tolist() == expected


@pytest.mark.parametrize("cache_mb", [512, 0])
def test_residuals_are_added_up_where_features_are_read_again_and_sum_to_zero(
    cache_mb, monkeypatch
):
    sums = []
    add = ResidualSums.add_to

    def add_and_note(self, total, batch):
        before = total.clone()
        add(self, total, batch)
        sums.append(total - before)

    monkeypatch.setattr(ResidualSums, "add_to", add_and_note)
    answered([Request(layers=["2"])], cache_mb=cache_mb)
    assert bool(sums) == (cache_mb == 0)
    if sums:
        assert float(torch.stack(sums).abs().max()) > 0.1
        assert float(torch.stack(sums).sum(0).abs().max()) < 1e-12


def test_two_statistics_of_one_name_are_refused():
    class Other(Largest):
        name = "scatter"

    wanted = [Request(layers=["2"], statistics=(kind(),)) for kind in (Scatter, Other)]
    first, second = answered(wanted)
    assert "scatter" in first.layers["2"].statistics
    with pytest.raises(
        ValueError, match="Two statistics have the name 'scatter', Other and Scatter"
    ):
        raise second


def test_a_statistic_counts_in_the_memory_budget():
    wide = TensorDataset(torch.randn(30, 3000), torch.arange(3).repeat_interleave(10))
    net = torch.nn.Sequential(torch.nn.Linear(3000, 3))
    probe = Probe(wide, "wide", memory_mb=100)
    request = Request(layers=["input"], statistics=(Scatter(),))  # 3000 x 3000 numbers, twice
    requests = [request, Request(layers=["input"])]
    asked = GeometryPass(plain_runner(net), lambda: wide, probe, requests, Processes())
    too_large, answer = asked.run()
    with pytest.raises(ValueError, match=r"'input' has 3000 features.*over the 100 MB"):
        raise too_large
    assert answer.layers["input"].means.shape == (3, 3000)


def by_process(rank, world):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        request = Request(layers=["2", "6"], statistics=(Scatter(), Largest()))
        (answer,) = answered([request], Processes(rank, world))
    return {
        (layer, name): total
        for layer, geometry in answer.layers.items()
        for name, total in geometry.statistics.items()
    }


@pytest.mark.slow
def test_two_processes_add_up_what_one_does():
    expected = by_process(0, 1)
    for totals in run_processes(by_process, 2):
        assert totals.keys() == expected.keys()
        for key, total in totals.items():
            torch.testing.assert_close(total, expected[key], rtol=1e-12, atol=1e-12)


def test_what_a_geometry_is_made_of_has_the_names_of_its_fields():
    (answer,) = answered([Request(layers=["2"])])
    for statistic in GEOMETRY:
        assert getattr(answer.layers["2"], statistic.name).shape == (3,)


def test_an_evaluation_needs_values_alone():
    assert Evaluation({}).layers == {}
