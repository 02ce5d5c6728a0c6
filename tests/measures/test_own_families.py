"""Families with sums of their own are right, on any number of processes, and fail alone."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lightning_nc import (
    EquiSeparation,
    Evaluation,
    MeasureCallback,
    Probe,
    Quantity,
    Request,
    check,
    measure,
)
from lightning_nc.measures.together import evaluated
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.plan import Plan
from tests import nets
from tests.measures.own_families import (
    Alignment,
    GradientNorms,
    LinearProbes,
    MinorityNorms,
    Moments,
    Ranks,
    RidgeCorrect,
)
from tests.processes import run_processes

LAYERS = {"input": 0, "2": 3, "6": 7}
WAYS = [{}, {"cache_mb": 0}, {"memory_mb": 0.0056}]  # kept, read again, layers in groups
pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def network():
    torch.manual_seed(3)
    return nets.mlp().eval()


def probe(**options):
    return Probe(nets.vectors(), "mine", samples_per_class=None, batch_size=7, **options)


def features():
    x, labels = nets.vectors().tensors
    layers = {name: network()[:end](x).detach().double().numpy() for name, end in LAYERS.items()}
    return layers, labels.numpy()


def measured(one, **options):
    return measure(network(), probe(**options), measures=[one])


@pytest.mark.parametrize("way", WAYS)
def test_ranks_are_those_of_centred_features(way):
    values = measured(Ranks(), **way).values
    for name, h in features()[0].items():
        s = np.linalg.svd(h - h.mean(0), compute_uv=False)
        p = s[s > 1e-9] / s.sum()
        key = f"ranks_layers/mine/{name}"
        participation = (s**2).sum() ** 2 / (s**4).sum()
        assert values[f"{key}/participation"] == pytest.approx(participation, rel=1e-9)
        assert values[f"{key}/effective"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_layers_are_aligned_sample_by_sample(way):
    values = measured(Alignment(), **way).values
    assert [*values] == ["alignment_layers/mine/2", "alignment_layers/mine/6"]
    kernels = [(h - h.mean(0)) @ (h - h.mean(0)).T for h in features()[0].values()]
    for found, (a, b) in zip(values.values(), pairwise(kernels), strict=True):
        expected = (a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b))
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_what_the_first_sweep_has_summed_is_there_in_the_second(way):
    found = measured(LinearProbes(), **way)
    layers, labels = features()
    for name, h in layers.items():
        X, Y = np.c_[h, np.ones(len(h))], np.eye(3)[labels]
        W = np.linalg.solve(X.T @ X + 1e-3 * np.eye(X.shape[1]), X.T @ Y)
        expected = ((X @ W).argmax(1) == labels).mean()
        assert found.values[f"probes_layers/mine/{name}"] == pytest.approx(expected, rel=1e-12)
    assert found.values["probes/mine/last"] == found.values["probes_layers/mine/6"]


def test_of_layers_alone_a_figure_has_to_be_drawn_by_the_measure():
    with pytest.raises(
        ValueError, match=r"no row of `quantities` has .* or the measure a draw\(\)"
    ):
        measured(Alignment()).plot()
    assert measured(Ranks()).plot()[1].get_title() == "Ranks, mine"


def test_norms_of_classes_are_drawn():
    found = measured(MinorityNorms([1, 2]))
    layers, labels = features()
    for name, h in layers.items():
        norms = [np.linalg.norm(h[labels == k], axis=1).mean() for k in range(3)]
        ratio = (norms[1] + norms[2]) / 2 / norms[0]
        assert found.values[f"norms_layers/mine/{name}"] == pytest.approx(ratio, rel=1e-12)
    assert found.arrays["norms/mine/norms"].tolist() == pytest.approx(norms)
    assert [bar.get_width() for bar in found.plot()[1].patches] == pytest.approx(norms)


def losses(network, inputs):
    x, labels = inputs
    return nn.functional.cross_entropy(network(x), labels, reduction="none")[:, None]


def test_these_layers_are_measured_in_groups_where_that_is_meant(monkeypatch):
    groups = []
    in_groups = Plan.in_groups
    monkeypatch.setattr(
        Plan, "in_groups", lambda *args: groups.append(in_groups(*args)) or groups[-1]
    )
    for make in (Ranks, Alignment, LinearProbes):
        groups.clear()
        measured(make(), **WAYS[-1])
        assert len(groups[-1]) > 1


def test_gradients_of_the_loss_are_those_of_a_network_that_returns_it():
    of_loss = probe(unpack=lambda batch: (batch, batch[1]), forward=losses)
    found = measure(network(), of_loss, measures=[GradientNorms()])
    net, (x, labels) = network(), nets.vectors().tensors
    norms = [[], [], []]
    for i, k in enumerate(labels):
        loss = nn.functional.cross_entropy(net(x[i : i + 1]), labels[i : i + 1])
        gradients = torch.autograd.grad(loss, [*net.parameters()])
        norms[k].append(sum(float(g.double().square().sum()) for g in gradients) ** 0.5)
    means = [float(np.mean(each)) for each in norms]  # of 12, 9 and 9, of which 9 are compared
    assert found.arrays["gradients/mine/norms"][1:].tolist() == pytest.approx(means[1:], rel=1e-5)
    assert found.values["gradients/mine/ratio"] >= 1


ALL = (Ranks, Alignment, LinearProbes, lambda: MinorityNorms([1, 2]), GradientNorms)


def answered(kind, requests, rank, world):
    given = probe()
    return kind(
        plain_runner(network()), lambda: given.source, given, requests, Processes(rank, world)
    ).run()


def by_process(rank, world):
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in (make() for make in ALL):
            (answer,) = answered(one.passes, [one.request()], rank, world)
            evaluation = evaluated(one, answer).evaluation
            found |= {(one.family, "", name): v for name, v in evaluation.values.items()}
            found |= {(one.family, name): v for name, v in evaluation.layers.items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_measure_what_one_does(world):
    expected = by_process(0, 1)
    assert len(expected) == 6 + 2 + 4 + 3 + 1
    for found in run_processes(by_process, world):
        assert found == pytest.approx(expected, rel=1e-12)


class Failing(Ranks):
    """A measure whose parts can be replaced by what is wrong."""

    family = "failing"

    def __init__(self, **parts):
        self.__dict__.update(parts)


def raising(*_):
    raise RuntimeError("a mistake")


class Halves(Moments):
    name = "halves"

    def shape(self, K, d):
        return d / 2, d


WRONG = {
    "a request that fails": ({"request": raising}, "RuntimeError: a mistake"),
    "no request": (
        {"request": lambda: None},
        r"Failing.request\(\) must return a Request, got None",
    ),
    "a statistic, and no tuple of these": (
        {"request": lambda: Request(layers="blocks", statistics=Moments())},
        "statistics must be a tuple of objects of Statistic, got <",
    ),
    "layers that are none": ({"request": lambda: Request(layers=3)}, "layers must be .*, got 3"),
    "half a row": (
        {"request": lambda: Request(layers="blocks", statistics=(Halves(),))},
        r"The statistic 'halves' has shape \(3.0, 6\): shape\(3, 6\) must .* whole numbers",
    ),
    "a sum of the first sweep that is not there": (
        {"request": lambda: Request(layers="blocks", statistics=(RidgeCorrect(),))},
        "The statistic 'ridge correct' cannot be summed: KeyError: 'moments'",
    ),
    "no evaluation": (
        {"evaluate": lambda answer: {"own": 1.0}},
        r"Failing.evaluate\(\) must return an Evaluation, got \{'own': 1.0\}",
    ),
    "several numbers": (
        {"evaluate": lambda answer: Evaluation({"own": torch.ones(2)})},
        r"evaluate\(\) has tensor\(\[1., 1.\]\) as 'own', not one number",
    ),
    "no tensor": (
        {"evaluate": lambda answer: Evaluation({}, arrays={"own": [1.0]})},
        r"evaluate\(\) has \[1.0\] among its arrays, as 'own', and not a Tensor",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_measure_that_is_wrong_costs_itself_alone(case, tmp_path):
    parts, why = WRONG[case]
    alone, beside = EquiSeparation(), EquiSeparation()
    nets.fit(tmp_path / "alone", [alone])
    with pytest.warns(RuntimeWarning, match=f"Failing (skipped|on).*{why}"):
        nets.fit(tmp_path / "beside", [beside, MeasureCallback(Failing(**parts))])
    for mine, theirs in zip(beside.history, alone.history, strict=True):
        assert mine.values["separation/train/total"] == theirs.values["separation/train/total"]


def test_a_dry_run_names_a_request_that_fails():
    callbacks = [EquiSeparation(), MeasureCallback(Failing(request=raising))]
    callbacks += [MeasureCallback(Failing(request=raising, passes=GradientNorms.passes))]
    found = check(network(), nets.vectors(), callbacks=callbacks)
    assert [each.why_not for each in found.families] == ["", "a mistake", "a mistake"]


def asked_by_process(rank, world):
    """Requests of which those of own measures fail on the second process alone."""
    mistake, law = RuntimeError("a mistake"), EquiSeparation().measure.request()
    of_layers, of_gradients = (
        mistake if rank else one().request() for one in (Ranks, GradientNorms)
    )
    found = answered(Ranks.passes, [of_layers, law], rank, world)
    found += answered(GradientNorms.passes, [of_gradients], rank, world)
    return [str(each) if isinstance(each, Exception) else "" for each in found]


@pytest.mark.slow
def test_a_request_that_fails_on_one_process_fails_on_all_and_alone():
    for of_layers, law, of_gradients in run_processes(asked_by_process, 2, timeout=120):
        assert "a mistake" in of_layers
        assert law == ""
        assert "a mistake" in of_gradients


def test_a_row_has_no_name_of_the_bookkeeping():
    one = Failing(quantities=(Quantity("seconds", "", "Seconds", "Of something.", of=raising),))
    with pytest.raises(
        ValueError, match=r"Failing\.quantities has a row named 'seconds', which is"
    ):
        MeasureCallback(one)
