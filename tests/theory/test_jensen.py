import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn

from lightning_nc.theory.jensen import class_mean_outputs, cross_entropy_risk


def random_network(seed, n=40, K=3):
    """Outputs of a random network on random data with random labels and probabilities."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(5, 30), nn.ReLU(), nn.Linear(30, K))
    with torch.no_grad():
        h = 10 * network(torch.randn(n, 5, generator=generator)).double()
    labels = torch.cat([torch.arange(K), torch.randint(K, (n - K,), generator=generator)])
    return h, labels, torch.rand(n, generator=generator)


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_the_means_of_classes_never_have_a_higher_risk(seed):
    h, labels, P = random_network(seed)
    collapsed = class_mean_outputs(h, labels, P)
    assert cross_entropy_risk(collapsed, labels, P) < cross_entropy_risk(h, labels, P)
    for k in range(3):
        assert len(collapsed[labels == k].unique(dim=0)) == 1
        expected = (P[labels == k, None] * h[labels == k]).sum(0) / P[labels == k].sum()
        assert_allclose(collapsed[labels == k][0], expected, rtol=1e-6)


def test_the_risk_stays_only_where_outputs_had_collapsed():
    h, labels, P = random_network(seed=0)
    collapsed = class_mean_outputs(h, labels, P)
    again = class_mean_outputs(collapsed, labels, P)
    assert_allclose(again, collapsed, rtol=1e-12)
    # softmax does not see the direction (1, .., 1), along which the loss is not strictly convex
    shifted = collapsed + torch.linspace(-1, 1, len(h), dtype=torch.float64)[:, None]
    assert_allclose(cross_entropy_risk(shifted, labels), cross_entropy_risk(collapsed, labels))


@pytest.mark.parametrize("gap", [0.0, 1.0, 20.5, 37.0, 100.0, 700.0, -30.0])
def test_a_tiny_risk_has_all_its_digits(gap):
    expected = float(mpmath.log1p(2 * mpmath.exp(-gap)))
    h = torch.tensor([[gap, 0.0, 0.0]], dtype=torch.float64)
    assert_allclose(cross_entropy_risk(5 + h, torch.tensor([0])), expected, rtol=1e-12)


def test_a_loss_that_is_not_convex_rises_when_outputs_collapse():
    # the control: of the share of errors, which is not convex, the lemma does not hold
    h = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0])
    collapsed = class_mean_outputs(h, labels)
    assert (h.argmax(1) != labels).double().mean() < (collapsed.argmax(1) != labels).double().mean()


def test_means_over_other_groups_than_classes_raise_the_risk():
    h = torch.tensor([[5.0, 0.0], [0.0, 5.0]])
    labels = torch.tensor([0, 1])
    mixed = class_mean_outputs(h, torch.tensor([0, 0]))
    assert cross_entropy_risk(mixed, labels) > cross_entropy_risk(h, labels)


@pytest.mark.parametrize(
    ("outputs", "labels", "P", "said"),
    [
        ((0, 2), (0,), None, "got"),
        ((3,), (3,), None, r"got \(3,\)"),
        ((3, 2), (2,), None, r"\(2,\)"),
        ((3, 2), (3,), [1.0, -1.0, 1.0], r"-1\.0"),
        ((3, 2), (3,), [0.0, 0.0, 0.0], r"0\.0"),
        ((3, 2), (3,), [1.0], r"\[1\.0\]"),
        ((3, 2), (3,), [1.0, math.inf, 1.0], "inf"),
        ((1, 2), (1,), [math.nan], "nan"),
    ],
)
def test_what_has_no_risk_is_refused(outputs, labels, P, said):
    labels = torch.zeros(labels, dtype=torch.long)
    for function in (cross_entropy_risk, class_mean_outputs):
        with pytest.raises(ValueError, match=said):
            function(torch.ones(outputs), labels, None if P is None else torch.tensor(P))


@pytest.mark.parametrize("label", [-100, -1, 2, 0.5])
def test_labels_that_are_no_classes_are_refused(label):
    labels = torch.tensor([0, 1, label])
    for function in (cross_entropy_risk, class_mean_outputs):
        with pytest.raises(ValueError, match="integers from 0 to 1, got"):
            function(torch.ones(3, 2), labels)
