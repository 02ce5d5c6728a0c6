import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc.theory.logistic import logistic_gradients, logistic_hessian, logistic_regression
from lightning_nc.theory.stability import (
    influence_stability,
    leave_one_out_stability,
    locally_elastic_stability,
)

MU = 0.2


def samples(m, seed, clusters=6):
    """Each in one of several orthogonal clusters, where labels differ: a sample matters to few."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.randint(clusters, (m,), generator=generator)
    x = 3 * torch.eye(clusters, dtype=torch.float64)[cluster]
    x += 0.3 * torch.randn(m, clusters, generator=generator, dtype=torch.float64)
    flipped = torch.rand(m, generator=generator) < 0.1
    return x, ((cluster % 2 == 1) ^ flipped).long()


@pytest.fixture(scope="module")
def both():
    (x, y), (x_test, y_test) = samples(400, seed=0), samples(100, seed=1)
    w = logistic_regression(x, y, MU)
    influence = influence_stability(
        logistic_gradients(x, y, w),
        logistic_hessian(x, w, MU),
        logistic_gradients(x_test, y_test, w),
    )
    return influence, leave_one_out_stability(x, y, x_test, y_test, MU), (x, y, w)


def test_influence_agrees_with_training_without_each_sample(both):
    influence, retrained, _ = both
    estimated, exact = locally_elastic_stability(influence), locally_elastic_stability(retrained)
    assert_allclose(estimated.locally_elastic, exact.locally_elastic, rtol=0.05)
    assert_allclose(estimated.uniform, exact.uniform, rtol=0.05)
    matters = retrained > 0.02 * retrained.max()
    assert matters.double().mean() > 0.1
    assert_allclose(influence[matters], retrained[matters], rtol=0.05)


def test_the_locally_elastic_stability_is_far_below_the_uniform_one(both):
    for beta in both[:2]:
        locally_elastic, uniform, ratio = locally_elastic_stability(beta)
        assert locally_elastic < uniform / 5
        assert_allclose(ratio, locally_elastic / uniform)


def test_what_influence_leaves_out_is_mostly_the_leverage(both):
    influence, retrained, (x, _, w) = both
    sigma = (x @ w).sigmoid()
    H = logistic_hessian(x, w, MU)
    h = sigma * (1 - sigma) * (x * torch.linalg.solve(H, x.mT).mT).sum(1) / len(x)
    matters = retrained > 0.02 * retrained.max()
    error = (influence / retrained - 1)[matters].abs().mean()
    remaining = (influence / (1 - h)[:, None] / retrained - 1)[matters].abs().mean()
    assert remaining < error / 2


def test_influence_of_a_mean_is_the_product_of_the_deviations():
    z = torch.tensor([[-1.0], [0.0], [4.0]])
    beta = influence_stability(1 - z, torch.eye(1), 1 - torch.tensor([[3.0]]))
    assert_allclose(beta, [[4 / 3], [2 / 3], [2]])


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 4), st.integers(0, 5))
@settings(deadline=None)
def test_influence_does_not_depend_on_the_coordinates_of_the_weights(seed, m, p, n):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    g, g_test, root = normal(m, p), normal(n, p), normal(p, p)
    H = root @ root.mT + torch.eye(p)
    T, _ = torch.linalg.qr(normal(p, p))
    T = T * torch.linspace(0.5, 2, p)  # w = T w': gradients become g T, the Hessian T^T H T
    expected = influence_stability(g, H, g_test)
    changed = influence_stability(g @ T, T.mT @ H @ T, g_test @ T)
    assert changed.shape == (m, n)
    assert_allclose(changed, expected, rtol=1e-6, atol=1e-9)


def test_training_without_a_sample_is_that_on_the_others():
    (x, y), (x_test, y_test) = samples(20, seed=2), samples(5, seed=3)
    beta = leave_one_out_stability(x, y, x_test, y_test, MU)
    w = logistic_regression(x, y, MU)
    others = torch.arange(20) != 4
    w_4 = logistic_regression(x[others], y[others], MU * 20 / 19)
    probabilities = [torch.where(y_test == 1, 1.0, -1.0) * (x_test @ v) for v in (w, w_4)]
    losses = [-each.sigmoid().log() for each in probabilities]
    assert beta.shape == (20, 5)
    assert_allclose(beta[4], (losses[0] - losses[1]).abs(), rtol=1e-8)


def test_suprema_are_over_samples_and_the_mean_over_training_samples():
    beta = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 1.0]])
    locally_elastic, uniform, ratio = locally_elastic_stability(beta)
    assert locally_elastic == 2  # columns have the means 2, 0, 1.5
    assert uniform == 3
    assert_allclose(ratio, 2 / 3)


def test_where_every_sample_matters_alike_both_are_the_same():
    assert locally_elastic_stability(torch.full((4, 3), 0.2)).ratio == 1


def test_where_no_sample_matters_the_ratio_is_undefined():
    locally_elastic, uniform, ratio = locally_elastic_stability(torch.zeros(4, 3))
    assert locally_elastic == uniform == 0
    assert math.isnan(ratio)


def test_an_undefined_entry_leaves_all_undefined():
    beta = torch.ones(2, 2)
    beta[0, 1] = math.nan
    assert all(math.isnan(value) for value in locally_elastic_stability(beta))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,)])
def test_stability_without_entries_is_refused(shape):
    with pytest.raises(ValueError, match="got"):
        locally_elastic_stability(torch.ones(shape))


def test_negative_changes_are_refused():
    with pytest.raises(ValueError, match="got -1"):
        locally_elastic_stability(torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize(
    ("gradients", "hessian", "test_gradients"),
    [
        ((0, 2), (2, 2), (3, 2)),
        ((4,), (2, 2), (3, 2)),
        ((4, 2), (3, 3), (3, 2)),
        ((4, 2), (2, 2), (3, 3)),
    ],
)
def test_gradients_that_do_not_fit_are_refused(gradients, hessian, test_gradients):
    with pytest.raises(ValueError, match="got"):
        influence_stability(torch.ones(gradients), torch.ones(hessian), torch.ones(test_gradients))


def test_a_hessian_that_is_not_positive_definite_is_refused():
    g = torch.ones(2, 2)
    with pytest.raises(ValueError, match="lowest eigenvalue is -1"):
        influence_stability(g, torch.diag(torch.tensor([1.0, -1.0])), g)
    with pytest.raises(ValueError, match=r"differs from its transpose by 0\.5"):
        influence_stability(g, torch.tensor([[1.0, 0.5], [0.0, 1.0]]), g)
    with pytest.raises(ValueError, match="finite"):
        influence_stability(g, torch.full((2, 2), math.nan), g)
