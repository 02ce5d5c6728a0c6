"""What `LocalElasticity` measures, on which samples, and what it does where it cannot."""

import itertools
import logging
import math
import re

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import LocalElasticity, NeuralCollapse, Probe
from lightning_nc.functional import (
    class_effects,
    gradient_kernel,
    last_layer_kernel,
    relative_ratio,
    relative_similarity,
)
from lightning_nc.functional.gradient_kernel import network_on
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.tangent import kernel
from lightning_nc.tangent.checked_pass import CheckedPass
from tests import nets, reference
from tests.callbacks import runs

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def data(counts=(12, 9, 9), d=6):
    """Classes on one side of the origin, so that all kernels are positive."""
    vectors = nets.Blobs(counts, augment=False, d=d)
    return TensorDataset(vectors.inputs.abs().float(), vectors.targets)


def measured(tmp_path, net=None, counts=(12, 9, 9), **options):
    """A network, and what is measured of it before training."""
    torch.manual_seed(3)
    module = nets.Classifier(net or nets.mlp(K=len(counts)), freeze=0)
    before = {}

    def keep(evaluation):
        before.update({k: v.clone() for k, v in module.state_dict().items()})
        return evaluation

    callback = LocalElasticity(**{"probe": Probe(data(counts), "mine"), "epochs": [0]} | options)
    nets.through(callback, "evaluate", keep)
    run = nets.trainer(tmp_path, [callback], max_epochs=1)
    run.fit(module, DataLoader(data(counts), 10, shuffle=True))
    module.load_state_dict(before)
    (measurement,) = callback.history
    values = {key.removeprefix("elasticity/mine/"): v for key, v in measurement.values.items()}
    return module.eval(), measurement, values


def compared(measurement, samples):
    """The samples of a measurement, found by their classes, as the probe draws them."""
    inputs, labels = samples.tensors
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    by_class = labels[order].argsort(stable=True)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    probe = order[by_class][shuffled]
    y = measurement.arrays["labels"]
    chosen = [probe[labels[probe] == k][: int((y == k).sum())] for k in y.unique()]
    assert torch.equal(labels[torch.cat(chosen)], y)
    return inputs[torch.cat(chosen)], y


def test_what_is_logged_is_the_kernel_of_five_samples_of_each_class(tmp_path):
    module, measurement, values = measured(tmp_path, relative_similarity=True)
    x, y = compared(measurement, data())
    assert measurement.counts.tolist() == [5, 5, 5]
    K = gradient_kernel(module, x)
    expected = reference.tangent_kernel(reference.sample_gradients(module, x))
    assert torch.allclose(measurement.arrays["kernel"], torch.as_tensor(expected), rtol=1e-4)
    assert values["relative_ratio"] == pytest.approx(float(relative_ratio(K, y)), rel=1e-6)
    with_self = float(relative_ratio(K, y, self_pairs=True))
    assert values["relative_ratio_self_pairs"] == pytest.approx(with_self, rel=1e-6)
    alpha, beta = class_effects(K / 3, y)
    assert (values["intra"], values["inter"]) == pytest.approx((float(alpha), float(beta)))
    of_steps = class_effects(relative_similarity(module, x, y), y)
    names = "relative_similarity_intra", "relative_similarity_inter"
    assert [values[name] for name in names] == pytest.approx([float(v) for v in of_steps], rel=1e-5)
    assert 0 < values["relative_similarity_seconds"] < values["seconds"]
    expected = {"relative_ratio", "relative_ratio_self_pairs", "intra", "inter", *names}
    assert set(values) - {row.name for row in BOOKKEEPING} == {
        *expected,
        "relative_similarity_seconds",
    }


def test_the_last_layer_has_a_closed_form_that_is_the_kernel_of_its_parameters(tmp_path):
    options = {"relative_similarity": True, "samples_per_class": 4}
    module, measurement, values = measured(tmp_path, parameters="last_layer", **options)
    _, _, by_gradients = measured(tmp_path, parameters=["net.8.*"], **options)
    x, _ = compared(measurement, data())
    h = nn.Sequential(*list(module.net)[:-1])(x).detach()
    assert torch.allclose(measurement.arrays["kernel"], last_layer_kernel(h, 3), rtol=1e-5)
    for name, value in values.items():
        if not name.endswith("seconds"):
            assert value == pytest.approx(by_gradients[name], rel=1e-4), name


def test_all_directions_are_exact_and_a_few_are_near(tmp_path):
    _, exact, _ = measured(tmp_path)
    _, all_of_them, _ = measured(tmp_path, outputs=3)
    _, few, _ = measured(tmp_path, outputs=2)
    kernels = [m.arrays["kernel"] for m in (exact, all_of_them, few)]
    assert torch.allclose(kernels[0], kernels[1], rtol=1e-5)
    assert not torch.allclose(kernels[0], kernels[2], rtol=1e-2)
    assert 0.3 < float(kernels[2].trace() / kernels[0].trace()) < 3


def test_of_many_classes_some_are_compared_and_always_the_same(tmp_path):
    counts = (6,) * 7
    drawn = [
        measured(tmp_path, counts=counts, max_classes=3, samples_per_class=2)[1] for _ in range(2)
    ]
    assert drawn[0].counts.tolist() == drawn[1].counts.tolist()
    assert sorted(drawn[0].counts.tolist()) == [0] * 4 + [2] * 3
    other = measured(
        tmp_path,
        counts=counts,
        max_classes=3,
        samples_per_class=2,
        probe=Probe(data(counts), "mine", seed=1),
    )[1]
    assert other.counts.tolist() != drawn[0].counts.tolist()


def test_a_class_with_few_samples_gives_those_that_it_has(tmp_path):
    _, measurement, _ = measured(tmp_path, counts=(12, 3, 9))
    assert measurement.counts.tolist() == [5, 3, 5]


def test_a_linear_network_keeps_the_ratio_of_its_inputs(tmp_path):
    torch.manual_seed(1)
    callback = LocalElasticity(probe=Probe(data(), "mine"))
    module = nets.Classifier(nn.Linear(6, 3), freeze=0)
    nets.trainer(tmp_path, [callback]).fit(module, DataLoader(data(), 10, shuffle=True))
    x, y = compared(callback.history[0], data())
    ratio = float(relative_ratio(x.double() @ x.double().mT + 1, y))
    logged = [m.values["elasticity/mine/relative_ratio"] for m in callback.history]
    assert logged == pytest.approx([ratio] * 3, rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"relative_similarity": True},
        {"outputs": 2, "relative_similarity": True},
        {"outputs": lambda f: f.logsumexp(1)},
        {"parameters": ["net.0.*"]},
        {"parameters": "last_layer", "relative_similarity": True},
        {"loss": lambda f, y: (f.sum(1) - y).square().mean(), "relative_similarity": True},
    ],
    ids=["steps", "directions", "a function", "a layer", "the last layer", "a loss"],
)
def test_training_is_bit_identical_with_every_kind_of_comparison(options, tmp_path):
    callback = LocalElasticity(probe=Probe(data(), "mine"), **options)
    runs.assert_untouched(tmp_path, callback)
    assert len(callback.history) == 3
    assert callback.failures == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"samples_per_class": 1},
            "samples_per_class must be 2 (to form pairs) or more, got 1",
        ),
        ({"max_classes": 1}, "max_classes must be 2 (to form pairs) or more, got 1"),
        (
            {"probe": Probe(batch_norm="batch")},
            'Give LocalElasticity a probe with batch_norm="eval"',
        ),
        ({"parameters": "last_layer", "outputs": 3}, "closed form only for all outputs"),
        ({"relative_similarity": True, "outputs": len}, "relative_similarity needs all outputs"),
        ({"outputs": 0}, "directions in outputs must be 1 or more, got 0"),
        ({"outputs": "some"}, "must be \"all\", a number of directions, or a function, got 'some'"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(options, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        LocalElasticity(**options)


class Doubled(nn.Linear):
    """Computes W h + b with another W and b than it has."""

    def forward(self, h):
        return 2 * super().forward(h)


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (nets.mlp, {"parameters": ["typo.*"]}, "No parameter matches 'typo.*'. The last"),
        (
            nets.mlp,
            {"outputs": lambda f: f[:, :, None]},
            "Set outputs= to a function that returns one",
        ),
        (nets.mlp, {"parameters": ["unused"]}, "The outputs depend on none of the selected"),
        (
            lambda: nn.Sequential(nn.Linear(6, 3), nn.Softmax(0)),
            {},
            "The outputs of a sample depend on the rest of its batch",
        ),
        (
            lambda: nn.Sequential(nn.Linear(6, 3), nn.Softmax(1)),
            {"parameters": "last_layer", "head": "net.1"},
            "The head 'net.1' has no weight matrix",
        ),
        (
            lambda: nn.Sequential(nn.Linear(6, 4), Doubled(4, 3)),
            {"parameters": "last_layer"},
            "The head 'net.1' is not a linear layer on 4 features per sample",
        ),
    ],
    ids=["a typo", "outputs that are no rows", "unused", "mixed samples", "no head", "other head"],
)
def test_what_cannot_be_compared_is_skipped_and_its_siblings_are_not(
    net, options, message, tmp_path
):
    probe = Probe(data(), "mine")
    callback = LocalElasticity(probe=probe, epochs=[1], **options)
    sibling = NeuralCollapse(probe=probe, epochs=[1])
    module = nets.Classifier(net(), freeze=0)
    module.unused = nn.Parameter(torch.zeros(1))
    run = nets.trainer(tmp_path, [callback, sibling])
    with pytest.warns(RuntimeWarning, match=re.escape(message)):
        run.fit(module, DataLoader(data(), 10))
    assert (callback.failures, len(callback.history)) == (1, 0)
    assert (sibling.failures, len(sibling.history)) == (0, 1)


def test_parameters_that_are_not_in_use_cost_nothing(tmp_path):
    net = nets.mlp()
    net[0].auxiliary = nn.Linear(6, 10**6)  # whose gradients by sample would take gigabytes
    _, measurement, _ = measured(tmp_path, net, parameters=["net.**"])
    assert measurement.arrays["kernel"].isfinite().all()


def test_users_are_told_what_makes_it_slow_and_how_to_help_it(tmp_path):
    probe = Probe(data(), "mine")
    many = nets.Classifier(nn.Linear(6, 101), freeze=0)
    with pytest.warns(RuntimeWarning, match="101 outputs take as many backward passes.*outputs=20"):
        nets.trainer(tmp_path, [LocalElasticity(probe=probe)]).fit(many, DataLoader(data(), 10))

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.gru(x.unflatten(1, (3, 2)))[0][:, -1])

    slow = nets.Classifier(Recurrent(), freeze=0)
    with pytest.warns(
        RuntimeWarning, match="'net.gru' took a backward pass for each sample"
    ) as told:
        nets.trainer(tmp_path, [LocalElasticity(probe=probe)]).fit(slow, DataLoader(data(), 10))
    assert len([w for w in told if w.category is RuntimeWarning]) == 1


def test_a_ratio_of_opposite_classes_is_undefined_and_a_warning_says_why(tmp_path):
    opposite = TensorDataset(
        torch.cat([torch.ones(5, 6), -torch.ones(5, 6)]) + 0.1 * torch.rand(10, 6),
        torch.arange(2).repeat_interleave(5),
    )
    callback = LocalElasticity(probe=Probe(opposite, "mine"), epochs=[0])
    module = nets.Classifier(nn.Linear(6, 2, bias=False), freeze=0)
    with pytest.warns(
        RuntimeWarning, match="relative_ratio.*the mean kernel between classes is not"
    ):
        nets.trainer(tmp_path, [callback]).fit(module, DataLoader(opposite, 10))
    (measurement,) = callback.history
    assert math.isnan(measurement.values["elasticity/mine/relative_ratio"])
    alpha, beta = (measurement.values[f"elasticity/mine/{name}"] for name in ("intra", "inter"))
    assert alpha > 0 > beta


def test_networks_in_parts_are_refused_at_setup_but_for_their_last_layer(tmp_path):
    class FSDPStrategy(SingleDeviceStrategy):
        pass

    def setup(callback):
        run = nets.trainer(tmp_path, [callback], strategy=FSDPStrategy("cpu"))
        callback.setup(run, nets.Classifier(), "fit")

    with pytest.raises(ValueError, match="LocalElasticity cannot compare gradients under FSDPStr"):
        setup(LocalElasticity())
    setup(LocalElasticity(parameters="last_layer"))


def test_figures_are_of_the_kernel_and_of_the_ratio_over_epochs(tmp_path):
    callback = LocalElasticity(probe=Probe(data(), "mine"))
    runs.train(tmp_path, [callback], logger=CSVLogger(tmp_path))
    drawn = {path.parent.name for path in tmp_path.rglob("*.png")}
    assert drawn == {"kernel", "ratio"}
    figure = nets.drawings(callback)["elasticity/mine/ratio"]()
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}
    shown = lines["pairs of different samples"]
    assert shown[:, 0].tolist() == [0, 1, 2]
    ratios = [m.values["elasticity/mine/relative_ratio"] for m in callback.history]
    assert shown[:, 1].tolist() == ratios


def messages(caplog, tmp_path, **options):
    """What Lightning's log says of measurements before and after an epoch of training."""
    caplog.clear()
    callback = LocalElasticity(probe=Probe(data(), "mine"), figures=False, **options)
    run = nets.trainer(tmp_path, [callback], max_epochs=1)
    run.fit(nets.Classifier(nets.mlp(), freeze=0), DataLoader(data(), 10))
    assert len(callback.history) == 2
    return [r.getMessage() for r in caplog.records if " on 'mine'" in r.getMessage()]


def test_what_a_long_measurement_costs_is_said_once_and_what_would_be_cheaper(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    clock = "lightning_nc.tangent.checked_pass.perf_counter"
    monkeypatch.setattr(clock, itertools.count(0, 1).__next__)  # an output takes a second
    assert messages(caplog, tmp_path) == []
    monkeypatch.setattr(clock, itertools.count(0, 2000).__next__)
    assert messages(caplog, tmp_path) == [
        "LocalElasticity on 'mine': a measurement takes about 1.67 h, for gradients of 3 outputs "
        "at 15 samples. Cheaper are outputs=1, an estimate from random directions; "
        'samples_per_class=2; parameters="last_layer", which takes one forward pass.'
    ]
    (text,) = messages(caplog, tmp_path, relative_similarity=True)
    assert "about 3.33 h" in text
    assert "relative_similarity=False" in text


def test_what_a_measurement_costs_is_said_before_any_of_its_outputs(monkeypatch):
    happened = []
    gradients, gram = CheckedPass.gradients, CheckedPass.gram
    monkeypatch.setattr(CheckedPass, "gram", lambda *all: happened.append("gram") or gram(*all))
    monkeypatch.setattr(
        CheckedPass, "gradients", lambda *all: happened.append("gradients") or gradients(*all)
    )
    network = network_on(nets.mlp().eval(), data()[:5][0], "all", None)
    kernel.tangent_kernel(network, torch.eye(3), foresee=happened.append)
    assert happened[0] == "gradients"  # of the check
    assert happened[1] > 0
    assert happened[2:] == ["gradients", "gram"] * 3
