"""Similarities of local elasticity: closed forms, formulas, real steps, invariances and edges."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn

from lightning_nc.functional import (
    class_effects,
    gradient_kernel,
    kernelized_similarity,
    rectangular_relative_ratio,
    relative_ratio,
    relative_similarity,
)
from lightning_nc.functional.loss_gradients import loss_gradients
from tests import nets, reference
from tests.tangent.cases import LAYERS, SEQUENCES, mlp

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)
seeds = st.integers(0, 2**16)
LABELS = torch.tensor([0, 2, 1, 0, 2])


def squares(f, y):
    return (f.squeeze(-1) - y).square().sum() / 2


def probabilities_less_labels(net, x, labels):
    with torch.no_grad():
        return (net(x).softmax(1) - F.one_hot(labels, 3)).numpy()


def step(net, sample, label, loss, rate):
    """A copy of the network after one SGD step."""
    stepped = copy.deepcopy(net)
    optimizer = torch.optim.SGD(stepped.parameters(), lr=rate)
    loss(stepped(sample[None]), label[None]).backward()
    optimizer.step()
    return stepped


def train(net, x, labels, steps=30):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()


def positive(m, seed=0):
    """A positive definite kernel without negative entries."""
    rows = torch.rand(m, m + 2, generator=torch.Generator().manual_seed(seed)).double()
    return rows @ rows.T


@pytest.fixture
def x():
    return torch.randn(5, 4).double()


def test_a_linear_classifier_has_the_ratio_of_its_inputs_before_and_after_training():
    net, x, labels = nn.Linear(4, 3).double(), torch.rand(9, 4).double(), torch.arange(9) % 3
    inputs = reference.relative_ratio((x @ x.T + 1).numpy(), labels)
    assert 0.4 < inputs < 0.6
    hidden = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    before = relative_ratio(gradient_kernel(hidden, x), labels)
    for _ in range(2):
        assert_allclose(relative_ratio(gradient_kernel(net, x), labels), inputs, rtol=1e-12)
        train(net, x, labels)
        train(hidden, x, labels)
    assert abs(relative_ratio(gradient_kernel(hidden, x), labels) - before) > 1e-3


def test_the_true_class_logit_would_be_a_kernel_of_another_kind():
    # of a linear network: nothing between classes, so that the ratio were 1 if it were defined
    net, x, labels = nn.Linear(4, 3).double(), torch.rand(6, 4).double(), torch.arange(6) % 3
    K = gradient_kernel(net, x)
    own = torch.where(labels[:, None] == labels, K / 3, 0.0)
    assert relative_ratio(own, labels).isnan()
    assert 0 < relative_ratio(K, labels) < 1


@pytest.mark.parametrize("case", ["conv2d grouped", "layer norm", "bare parameters", "windows"])
def test_similarities_are_as_the_formulas_say(case):
    net, x = LAYERS[case]()
    labels = torch.tensor([2, 0, 2])
    gradients = reference.sample_gradients(net, x)
    v = probabilities_less_labels(net, x, labels)
    changes = reference.changes_by_step(gradients, v)
    S = relative_similarity(net, x, labels).detach()
    assert_allclose(S, reference.relative_similarity(changes), rtol=1e-9)
    assert torch.equal(S.diagonal(), torch.ones(3).double())
    S = kernelized_similarity(net, x, labels).detach()
    assert_allclose(S, reference.kernelized_similarity(changes, v), rtol=1e-9, atol=1e-12)
    assert S.dtype == torch.float64


def test_similarities_of_recurrent_networks_are_as_the_formulas_say():
    net, x = SEQUENCES["lstm"]().double(), torch.randn(3, 3, 4).double()
    gradients = reference.sample_gradients(net, x)
    v = np.array([[0.0, 1.0], [1.0, -2.0], [0.5, 0.5]])

    def linear(f, t):
        return (f * t).sum()

    with pytest.warns(RuntimeWarning, match="backward pass for each sample"):
        S = relative_similarity(net, x, torch.tensor(v), linear)
    changes = reference.changes_by_step(gradients, v)
    assert_allclose(S, reference.relative_similarity(changes), rtol=1e-9)


@pytest.mark.parametrize("rate", [1e-7, 0.3])
@pytest.mark.parametrize("loss", [F.cross_entropy, None])
def test_a_rate_takes_real_steps_and_small_ones_the_limit(rate, loss, x):
    net = mlp()
    moves = []
    for i in range(5):
        stepped = step(net, x[i], LABELS[i], F.cross_entropy, rate)
        with torch.no_grad():
            moves.append((stepped(x) - net(x)).numpy())
    v = probabilities_less_labels(net, x, LABELS)
    S = relative_similarity(net, x, LABELS, loss, rate)
    tolerance = 1e-6 if rate < 1 else 1e-10
    assert_allclose(S, reference.relative_similarity(np.array(moves)), rtol=tolerance)
    S_ker = kernelized_similarity(net, x, LABELS, loss, rate)
    expected = reference.kernelized_similarity(-np.array(moves) / rate, v)
    assert_allclose(S_ker, expected, rtol=tolerance, atol=1e-6)
    limits = relative_similarity(net, x, LABELS), kernelized_similarity(net, x, LABELS)
    for by_rate, limit in zip((S, S_ker), limits, strict=True):
        assert torch.allclose(by_rate, limit, rtol=1e-5, atol=1e-6) == (rate < 1e-3)


@pytest.mark.parametrize("loss", [None, squares, lambda f, y: (f[:, 0] - y).abs()])
def test_of_one_output_the_kernelized_similarity_is_the_tangent_kernel(loss, x):
    net, targets = mlp(1), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]).double()
    K = gradient_kernel(net, x)
    assert_allclose(kernelized_similarity(net, x, targets, loss), K, rtol=1e-9)
    S = relative_similarity(net, x, targets, loss)
    assert_allclose(S, K.abs() / K.diagonal()[:, None], rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_a_loss_by_another_factor_moves_in_the_same_directions(scale, x):
    def scaled(f, y):
        return scale * F.cross_entropy(f, y, reduction="sum")

    net = mlp()
    for similarity in (relative_similarity, kernelized_similarity):
        expected = similarity(net, x, LABELS)
        assert_allclose(similarity(net, x, LABELS, scaled), expected, rtol=1e-9)
        part = similarity(net, x, LABELS, parameters=["2.*"])
        assert not torch.allclose(part, expected)


def test_a_step_that_goes_nowhere_has_no_similarity(x):
    net, targets = mlp(1), torch.zeros(5).double()
    targets[2] = net(x)[2].detach()  # no loss there
    for similarity in (relative_similarity, kernelized_similarity):
        S = similarity(net, x, targets, squares)
        assert S[2].isnan().all()
        assert S[[0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("rate", [0, -0.1, float("nan")])
def test_rates_are_positive(rate, x):
    with pytest.raises(ValueError, match=f"positive learning rate, got {rate}"):
        relative_similarity(mlp(), x, LABELS, rate=rate)


def test_ratios_by_hand_with_and_without_self_pairs():
    # norms 1, 2, 1 and 3; cosines .5 within class 0, .8 within class 1, .1 .2 .3 .4 between
    rows = [[1, 0.5, 0.1, 0.2], [0.5, 1, 0.3, 0.4], [0.1, 0.3, 1, 0.8], [0.2, 0.4, 0.8, 1]]
    cosines = torch.tensor(rows, dtype=torch.float64)
    norms = torch.tensor([1.0, 2.0, 1.0, 3.0], dtype=torch.float64)
    K, labels = cosines * norms[:, None] * norms, torch.tensor([4, 4, 7, 7])
    assert_allclose(relative_ratio(K, labels), 0.65 / (0.65 + 0.25), rtol=1e-12)
    with_selves = relative_ratio(K, labels, self_pairs=True)
    assert_allclose(with_selves, 0.825 / (0.825 + 0.25), rtol=1e-12)
    effects = class_effects(K, labels)
    assert_allclose(effects.intra, (1.0 + 2.4) / 2, rtol=1e-12)
    assert_allclose(effects.inter, (0.1 + 0.6 + 0.6 + 2.4) / 4, rtol=1e-12)


def test_effects_are_of_ordered_pairs():
    S = torch.tensor([[9.0, 1.0, 2.0], [3.0, 9.0, 4.0], [6.0, 8.0, 9.0]])
    effects = class_effects(S, torch.tensor([0, 0, 1]))
    assert (effects.intra, effects.inter) == (2.0, 5.0)
    assert effects.intra.dtype == torch.float64


@given(seed=seeds, m=st.integers(4, 9), classes=st.integers(1, 4), self_pairs=st.booleans())
def test_ratios_keep_under_scaling_of_each_sample_and_order(seed, m, classes, self_pairs):
    torch.manual_seed(seed)
    K, labels = positive(m, seed), torch.randint(classes, (m,))
    labels[:2] = torch.tensor([0, min(1, classes - 1)])
    ratio = relative_ratio(K, labels, self_pairs)
    scales, order = torch.randn(m).double().mul(3).exp(), torch.randperm(m)
    scaled = scales[:, None] * K * scales
    assert_allclose(relative_ratio(scaled, labels, self_pairs), ratio, rtol=1e-9)
    moved = K[order][:, order]
    assert_allclose(relative_ratio(moved, labels[order] + 5, self_pairs), ratio, rtol=1e-12)
    assert_allclose(class_effects(moved, labels[order]), class_effects(K, labels), rtol=1e-12)
    same = labels[:, None] == labels
    if (same.sum() > m or self_pairs) and not same.all():
        assert 0 < ratio < 1
        expected = reference.relative_ratio(K.numpy(), labels, self_pairs)
        assert_allclose(ratio, expected, rtol=1e-12)
    else:
        assert ratio.isnan()


def test_a_ratio_of_a_rectangle_by_hand():
    # cosines .5 and .3 within classes; .1, .2, .4 and .1 between them
    cosines = torch.tensor([[0.5, 0.1, 0.2], [0.4, 0.3, 0.1]], dtype=torch.float64)
    rows, columns = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0, 5.0])  # norms
    K = cosines * rows[:, None] * columns
    of = (rows.square(), columns.square(), torch.tensor([4, 7]), torch.tensor([4, 7, 8]))
    assert_allclose(rectangular_relative_ratio(K, *of), 0.4 / (0.4 + 0.2), rtol=1e-12)
    swapped = (of[1], of[0], of[3], of[2])
    assert_allclose(rectangular_relative_ratio(K.mT, *swapped), 0.4 / (0.4 + 0.2), rtol=1e-12)
    unlike = torch.tensor([0, 1])  # no pair of the same class
    assert rectangular_relative_ratio(K, of[0], of[1], unlike, of[3]).isnan()
    assert rectangular_relative_ratio(-K, *of).isnan()
    assert rectangular_relative_ratio(K, 0 * of[0], *of[1:]).isnan()


@given(seed=seeds, m=st.integers(4, 9))
def test_the_ratio_of_a_rectangle_is_over_its_pairs_alone(seed, m):
    K, labels = positive(m, seed), torch.arange(m) % 2
    k = K.diagonal()
    square = rectangular_relative_ratio(K, k, k, labels, labels)
    assert_allclose(square, relative_ratio(K, labels, self_pairs=True), rtol=1e-12)
    rows, columns = slice(0, 2), slice(2, m)
    expected = [[], []]
    for a, b in itertools.product(range(2), range(2, m)):
        expected[labels[a] == labels[b]].append(float(K[a, b] / (K[a, a] * K[b, b]).sqrt()))
    different, same = (sum(each) / len(each) for each in expected)
    parts = (K[rows, columns], k[rows], k[columns], labels[rows], labels[columns])
    ratio = rectangular_relative_ratio(*parts)
    if same > 0 and different > 0:
        assert_allclose(ratio, same / (same + different), rtol=1e-9)
    else:
        assert ratio.isnan()


def test_shapes_of_a_rectangle_that_do_not_match_are_refused():
    K, k, labels = torch.ones(2, 3), torch.ones(3), torch.arange(3)
    with pytest.raises(ValueError, match=r"got \(2, 3\), \(3,\), \(3,\), \(3,\), \(3,\)"):
        rectangular_relative_ratio(K, k, k, labels, labels)
    with pytest.raises(ValueError, match=r"got \(3,\), \(2,\)"):
        rectangular_relative_ratio(K[0], k[:2], k, labels[:2], labels)


@pytest.mark.parametrize("sign", ["same", "different", "both", "zero"])
def test_a_mean_that_is_not_positive_has_no_ratio(sign):
    K, labels = torch.eye(4) + 0.1, torch.tensor([0, 0, 1, 1])
    same = labels[:, None] == labels
    off = ~torch.eye(4, dtype=torch.bool)
    parts = {"same": same & off, "different": ~same, "both": off, "zero": ~same}
    K[parts[sign]] = 0.0 if sign == "zero" else -0.1
    assert relative_ratio(K, labels).isnan()


def test_what_is_undefined_is_nan():
    K = positive(3)
    assert relative_ratio(K, torch.zeros(3)).isnan()
    assert relative_ratio(K, torch.arange(3)).isnan()
    assert relative_ratio(K, torch.arange(3), self_pairs=True) > 0.5
    K[1] = K[:, 1] = 0  # a sample without a gradient
    assert relative_ratio(K, torch.tensor([0, 1, 1])).isnan()
    assert class_effects(K, torch.zeros(3)).inter.isnan()
    assert class_effects(K, torch.arange(3)).intra.isnan()


def test_samples_that_only_resemble_their_class_have_a_ratio_near_one():
    labels = torch.tensor([0, 0, 1, 1, 1])
    K = (labels[:, None] == labels).double() + 1e-9
    assert_allclose(relative_ratio(K, labels), 1, rtol=1e-8)
    assert_allclose(relative_ratio(torch.ones(5, 5), labels), 0.5, rtol=1e-12)


@pytest.mark.parametrize("C", [1, 2, 10])
@pytest.mark.parametrize("gap", [16, 40, 300])
def test_near_zero_loss_similarities_keep_their_digits(C, gap, x):
    net = mlp(C)
    labels = torch.arange(5) % max(C, 2)
    with torch.no_grad():  # as after long training: every sample is classified with a wide margin
        features = net[:2](x)
        targets = gap * (F.one_hot(labels, C) if C > 1 else 2 * labels[:, None] - 1).double()
        net[2].weight.copy_(torch.linalg.lstsq(features, targets).solution.T)
        net[2].bias.zero_()
    for similarity in (relative_similarity, kernelized_similarity):
        S = similarity(net, x, labels)
        assert S.isfinite().all()
        single = similarity(copy.deepcopy(net).float(), x.float(), labels)
        assert_allclose(single, S, rtol=1e-3, atol=1e-3 * float(S.abs().max()))


def test_the_loss_gradient_of_a_wide_margin_by_hand():
    # p = (1 - e, e) with e = exp(-40) / (1 + exp(-40)): the first entry is minus the second
    v = loss_gradients(torch.tensor([[40.0, 0.0]]), torch.tensor([0]))
    e = math.exp(-40) / (1 + math.exp(-40))
    assert_allclose(v, [[-e, e]], rtol=1e-12)
    v = loss_gradients(torch.tensor([[40.0], [40.0], [-40.0]]), torch.tensor([1, 0, 0]))
    assert_allclose(v, [[-e], [1 - e], [e]], rtol=1e-12)


@pytest.mark.parametrize("C", [1, 4])
def test_loss_gradients_are_those_of_autograd(C):
    f = torch.randn(6, C).double().requires_grad_()
    y = torch.arange(6) % max(C, 2)
    loss = F.cross_entropy if C > 1 else F.binary_cross_entropy_with_logits
    for targets in (y, torch.rand(6, C).double()):
        t = targets.reshape(-1, 1).double() if C == 1 else targets
        (expected,) = torch.autograd.grad(loss(f, t, reduction="sum"), f)
        assert_allclose(loss_gradients(f, targets), expected, rtol=1e-12, atol=1e-15)


def test_a_loss_with_float32_weights_of_its_own_is_taken_as_it_is():
    loss, f = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])), torch.zeros(1, 2)
    assert loss_gradients(f, torch.tensor([1]), loss).tolist() == [[0.5, -0.5]]
