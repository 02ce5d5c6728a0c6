import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc.theory.logistic import (
    logistic_gradients,
    logistic_hessian,
    logistic_losses,
    logistic_regression,
)


def samples(m=40, p=3, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(m, p, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] / scale + torch.randn(m, generator=generator) > 0).long()


def test_losses_are_minus_the_log_of_the_probability_of_the_label():
    x, y = samples()
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    probability = torch.stack([1 - (x @ w).sigmoid(), (x @ w).sigmoid()], 1)
    expected = -probability[torch.arange(40), y].log()
    assert_allclose(logistic_losses(x, y, w), expected, rtol=1e-12)


def test_losses_are_exact_where_the_formula_cancels_or_overflows():
    x, y = torch.tensor([[50.0], [50.0], [1000.0]]), torch.tensor([1, 0, 0])
    losses = logistic_losses(x, y, torch.ones(1))
    assert_allclose(losses, [math.exp(-50), 50, 1000], rtol=1e-12)


def test_gradients_and_hessian_are_those_of_the_losses():
    x, y = samples()
    w = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)

    def risk(w):
        return logistic_losses(x, y, w).mean() + 0.35 * w @ w

    gradients = torch.autograd.functional.jacobian(lambda w: logistic_losses(x, y, w), w)
    assert_allclose(logistic_gradients(x, y, w), gradients, rtol=1e-12)
    hessian = torch.autograd.functional.hessian(risk, w)
    assert_allclose(logistic_hessian(x, w, 0.7), hessian, rtol=1e-10)


@given(
    st.integers(0, 1000),
    st.integers(1, 20),
    st.integers(1, 5),
    st.floats(-3, 3),
    st.floats(-6, 2),
)
@settings(deadline=None)
def test_the_gradient_of_the_risk_vanishes_at_the_minimum(seed, m, p, log_scale, log_mu):
    scale, mu = 10**log_scale, 10**log_mu
    x, y = samples(m, p, seed, scale)
    w = logistic_regression(x, y, mu)
    gradients = logistic_gradients(x, y, w)
    total = gradients.mean(0) + mu * w
    # in proportion to the terms that cancel
    assert float(total.norm()) <= 1e-9 * (float(gradients.norm(dim=1).mean()) + scale * 1e-3)


def test_newton_converges_where_its_full_steps_would_not():
    x = torch.tensor([[-1.0, -1.0], [0.0, -6.0], [30.0, 60.0]], dtype=torch.float64)
    y, mu = torch.tensor([0, 1, 1]), 0.001
    w = torch.zeros(2, dtype=torch.float64)
    for _ in range(200):
        gradient = logistic_gradients(x, y, w).mean(0) + mu * w
        w = w - torch.linalg.solve(logistic_hessian(x, w, mu), gradient)
    assert gradient.norm() > 0.1
    w = logistic_regression(x, y, mu)
    assert_allclose(logistic_gradients(x, y, w).mean(0) + mu * w, 0, atol=1e-13)


def test_it_is_the_regression_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = samples(200, 4)
    regression = linear_model.LogisticRegression(
        C=1 / (200 * 0.05), fit_intercept=False, tol=1e-12, max_iter=10_000
    )
    expected = regression.fit(x.numpy(), y.numpy()).coef_[0]
    assert_allclose(logistic_regression(x, y, 0.05), expected, rtol=1e-5)


def test_a_sample_that_is_not_present_is_left_out_and_the_sum_divided_by_as_many():
    x, y = samples()
    present = torch.ones(40)
    present[7] = 0
    others = torch.arange(40) != 7
    expected = logistic_regression(x[others], y[others], 0.1 * 40 / 39)
    assert_allclose(logistic_regression(x, y, 0.1, present), expected, rtol=1e-10)
    w = torch.ones(3)
    expected = logistic_hessian(x[others], w, 0.1 * 40 / 39) * 39 / 40
    assert_allclose(logistic_hessian(x, w, 0.1, present), expected, rtol=1e-12)


def test_without_samples_present_the_weights_are_zero():
    x, y = samples(3)
    assert_allclose(logistic_regression(x, y, 0.1, torch.zeros(3)), 0)


@pytest.mark.parametrize("label", [-1, 2, 0.5, math.nan])
def test_labels_other_than_0_and_1_are_refused(label):
    x = torch.ones(2, 1)
    with pytest.raises(ValueError, match=f"got {label}"):
        logistic_regression(x, torch.tensor([1, label]), 0.1)
    with pytest.raises(ValueError, match=f"got {label}"):
        logistic_losses(x, torch.tensor([1, label]), torch.ones(1))


def test_shapes_that_do_not_fit_are_refused():
    x, y = samples()
    with pytest.raises(ValueError, match=r"got \(40, 3\) and \(39,\)"):
        logistic_regression(x, y[1:], 0.1)
    with pytest.raises(ValueError, match=r"got \(40,\) and \(40,\)"):
        logistic_losses(x[:, 0], y, torch.ones(1))
    with pytest.raises(ValueError, match=r"3 features, got shape \(2,\)"):
        logistic_gradients(x, y, torch.ones(2))


@pytest.mark.parametrize("mu", [0, -1, math.inf, math.nan])
def test_a_regularization_without_a_minimum_is_refused(mu):
    with pytest.raises(ValueError, match=f"and regularisation {mu}"):
        logistic_regression(*samples(), mu)


@pytest.mark.parametrize(
    "present", [[1.0, 1.0, -5.0], [1.0, math.nan, 1.0], [math.inf, 1.0, 1.0], [1.0, 1.0]]
)
def test_weights_of_samples_that_have_no_minimum_are_refused(present):
    with pytest.raises(ValueError, match="finite weight >= 0 for each of 3 samples"):
        logistic_regression(*samples(3), 0.1, torch.tensor(present))


@pytest.mark.parametrize("f", [15.0, 20.5, 25.0, 36.0])
def test_losses_have_all_their_digits(f):
    x, w = torch.tensor([[f], [f]], dtype=torch.float64), torch.ones(1)
    found = logistic_losses(x, torch.tensor([0, 1]), w)
    assert_allclose(found, [f + math.log1p(math.exp(-f)), math.log1p(math.exp(-f))], rtol=1e-15)


def test_features_that_are_not_finite_or_missing_are_refused():
    x, y = samples()
    x[3, 1] = math.inf
    with pytest.raises(ValueError, match="with 1 non-finite value"):
        logistic_regression(x, y, 0.1)
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        logistic_regression(x[:0], y[:0], 0.1)
