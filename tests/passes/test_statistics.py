"""Sums that a measure declares are added up once, over batches, sweeps and processes."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_nc import Evaluation, Measure, Probe, Quantity, Request, Statistic, measure
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes import geometry_pass
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.geometry_statistics import GEOMETRY, ClassSums, ResidualSums
from lightning_nc.passes.plan import megabytes_of
from lightning_nc.passes.sweeps import sweep
from tests import nets
from tests.measures.own_families import Scatter
from tests.processes import run_processes


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


class Power(Statistic):
    """Powers of features of each class."""

    name, second_sweep = "power", False

    def __init__(self, exponents):
        self.exponents = torch.tensor(exponents)
        self.as_given = np.array(exponents)

    def shape(self, K, d):
        return K, d

    def of(self, batch):
        return batch.by_class(batch.features.double() ** self.exponents)


def test_statistics_of_one_class_and_name_must_be_equal():
    wanted = [Request(layers=["2"], statistics=(Power(p),)) for p in ([2] * 12, [2] * 12, [4] * 12)]
    first, second, third = answered(wanted)
    assert torch.equal(*(each.layers["2"].statistics["power"] for each in (first, second)))
    with pytest.raises(ValueError, match="name 'power', Power and Power, but differ"):
        raise third


@pytest.mark.parametrize("ours", [*GEOMETRY, ResidualSums()])
def test_a_statistic_may_not_take_the_name_of_ours(ours):
    class Other(Largest):
        name = ours.name

    own = Request(layers=["2"], statistics=(Other(),), geometry=False)
    refused, answer = answered([own, Request(layers=["2"])], cache_mb=0)
    with pytest.raises(ValueError, match=f"name '{ours.name}', Other and {type(ours).__name__}"):
        raise refused
    assert answer.layers["2"].means.shape == (3, 12)


def test_a_statistic_that_fails_is_named():
    class Wrong(Largest):
        def of(self, batch):
            return batch.residuals

    class OfOtherShape(Largest):
        def of(self, batch):
            return torch.ones(2)

    class Missing(Largest):
        of = Statistic.of

    for kind, why in (
        (Wrong, "AttributeError: .*residuals"),
        (Missing, r"give the class a method of\(batch\)"),
        (OfOtherShape, r"\(2,\), .* \(3, 12"),
    ):
        (error,) = answered([Request(layers=["2"], statistics=(kind(),))])
        with pytest.raises(ValueError, match=f"The statistic 'largest' cannot be summed: .*{why}"):
            raise error
    (error,) = answered([Request(layers=["2"], statistics=(Largest,))])
    with pytest.raises(TypeError, match="must be objects of Statistic, got <class"):
        raise error


def test_a_statistic_that_fails_is_not_tried_again_and_its_first_error_is_told():
    class Failing(Largest):
        def of(self, batch):
            batches.append(batch)
            raise RuntimeError(f"in batch {len(batches)}")

    batches = []
    (error,) = answered([Request(layers=["2"], statistics=(Failing(),))])
    assert str(error).endswith("RuntimeError: in batch 1")
    assert len(batches) == 1


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


class Extremes(Statistic):
    """The largest feature of each kind above zero: of two sets, the larger one."""

    name, second_sweep, adds_up = "extremes", False, False

    def shape(self, K, d):
        return (d,)

    def of(self, batch):
        return batch.features.double().clamp(min=0).amax(0)

    def combine(self, states):
        return states.amax(0)


def extremes_of(end):
    torch.manual_seed(3)
    h = nets.mlp().eval()[:end](nets.vectors().tensors[0])
    return h.detach().double().clamp(min=0).amax(0)


@pytest.mark.parametrize("cache_mb", [512, 0])
def test_statistics_that_do_not_add_up_are_combined(cache_mb):
    (answer,) = answered([Request(layers=["2"], statistics=(Extremes(),))], cache_mb=cache_mb)
    assert torch.equal(answer.layers["2"].statistics["extremes"], extremes_of(3))


def test_a_statistic_that_cannot_be_combined_costs_its_own_request_alone():
    class OfTwo(Extremes):
        def combine(self, states):
            first, second = states  # but one process has a single state
            return torch.maximum(first, second)

    class ReadsOthers(Largest):
        name, second_sweep = "reads others", True

        def of(self, batch):
            return batch.centres.statistics["largest"]

    own = Request(layers=["2"], statistics=(OfTwo(),))
    others = Request(layers=["2"], statistics=(Largest(), ReadsOthers()))
    refused, answer = answered([own, others])
    with pytest.raises(ValueError, match=r"The statistic 'extremes' cannot be combined: .*got 1\)"):
        raise refused
    assert answer.layers["2"].statistics.keys() == {"largest", "reads others"}


def without_geometry(*statistics, layers=("2",)):
    return Request(layers=[*layers], statistics=statistics, geometry=False)


@pytest.mark.parametrize("cache_mb", [512, 0])
def test_statistics_alone_take_one_sweep_and_no_sum_of_any_class(cache_mb, monkeypatch):
    runs, sums = [], []
    monkeypatch.setattr(ClassSums, "add_to", lambda *_: sums.append(1))
    monkeypatch.setattr(geometry_pass, "sweep", lambda *args: runs.append(1) or sweep(*args))
    (answer,) = answered([without_geometry(Extremes(), layers=["2", "6"])], cache_mb=cache_mb)
    assert (len(runs), len(sums)) == (1, 0)
    assert answer.layers == {}
    assert [*answer.statistics] == ["2", "6"]
    assert torch.equal(answer.statistics["2"]["extremes"], extremes_of(3))


@pytest.mark.parametrize("cache_mb", [512, 0])
def test_statistics_alone_and_geometry_share_a_sweep(cache_mb):
    requests = [
        without_geometry(Extremes(), layers=["2", "4"]),
        Request(layers=["2"], statistics=(Scatter(),)),
        Request(layers=["6"], statistics=(Largest(),)),
    ]
    alone, second, third = answered(requests, cache_mb=cache_mb)
    apart = [answered([each], cache_mb=cache_mb)[0] for each in requests]
    assert [*alone.statistics] == ["2", "4"]
    assert [*alone.statistics["2"]] == ["extremes"]
    for layer, found in alone.statistics.items():
        assert torch.equal(found["extremes"], apart[0].statistics[layer]["extremes"])
    for together, one, layer in ((second, apart[1], "2"), (third, apart[2], "6")):
        assert together.statistics == {}
        assert torch.equal(together.layers[layer].means, one.layers[layer].means)
        assert torch.equal(together.layers[layer].fuzziness, one.layers[layer].fuzziness)


def test_statistics_of_final_means_need_geometry():
    refused, answer = answered([without_geometry(Scatter()), without_geometry(Largest())])
    with pytest.raises(ValueError, match=r"second sweep needs final class means.*geometry=True"):
        raise refused
    assert answer.statistics["2"]["largest"].shape == (3, 12)


def test_features_that_are_not_finite_are_told_without_geometry_too():
    data = nets.vectors()
    data.tensors[0][4, 1] = torch.nan
    probe = Probe(data, "mine", samples_per_class=None, batch_size=7)
    requests = [without_geometry(Extremes())]
    net = nets.mlp().eval()
    (error,) = GeometryPass(plain_runner(net), lambda: data, probe, requests, Processes()).run()
    with pytest.raises(ValueError, match=r"Features are not finite .* at '2'"):
        raise error


def test_the_memory_of_what_does_not_add_up_grows_with_the_processes():
    adding, apart = Scatter(), Extremes()
    assert megabytes_of(3, 10, [adding], 4) == megabytes_of(3, 10, [adding])
    assert megabytes_of(3, 10, [apart], 4) == 4 * megabytes_of(3, 10, [apart])


def by_process(rank, world):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = Request(layers=["2", "6"], statistics=(Scatter(), Largest(), Extremes()))
        requests = [own, without_geometry(Extremes(), layers=["4"])]
        answer, alone = answered(requests, Processes(rank, world))
    found = {layer: geometry.statistics for layer, geometry in answer.layers.items()}
    return {
        (layer, name): total
        for layer, statistics in (found | alone.statistics).items()
        for name, total in statistics.items()
    }


@pytest.mark.slow
def test_two_processes_add_up_what_one_does():
    expected = by_process(0, 1)
    for totals in run_processes(by_process, 2):
        assert totals.keys() == expected.keys()
        for key, total in totals.items():
            torch.testing.assert_close(total, expected[key], rtol=1e-12, atol=1e-12)


def test_an_evaluation_needs_values_alone():
    assert Evaluation({}).layers == {}
