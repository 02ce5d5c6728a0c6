import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import logsumexp

from lightning_nc.theory.lp_ball import lp_ball_minimizer
from lightning_nc.theory.simplex import simplex_etf


def solved(i, K, p, R):
    """The minimiser of -ln softmax_i over the ball, by a solver that knows no formula.

    z = R v / ||v||_p runs over the sphere; the loss falls along each ray on which it is below ln K,
    so that the minimiser is on the sphere.
    """

    def loss(v):
        z = R * v / (np.abs(v) ** p).sum() ** (1 / p)
        return logsumexp(z) - z[i]

    start = np.random.default_rng(i).normal(size=K)
    start[i] = 2
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-10, "maxiter": 2000}).x
    return R * found / (np.abs(found) ** p).sum() ** (1 / p)


@pytest.mark.parametrize("p", [1.5, 2, 3])
@pytest.mark.parametrize(("K", "R"), [(2, 1.0), (3, 4.0), (5, 1.0), (5, 4.0)])
def test_a_solver_finds_it_with_the_same_entries_for_every_class(p, K, R):
    alpha, beta = lp_ball_minimizer(K, p)
    for i in range(K):
        expected = np.full(K, R * beta)
        expected[i] = R * alpha
        assert_allclose(solved(i, K, p, R), expected, atol=2e-5 * R)


@pytest.mark.parametrize("p", [1.1, 1.5, 2, 3, 50])
def test_it_is_on_the_sphere_and_depends_on_p(p):
    alpha, beta = lp_ball_minimizer(6, p)
    assert_allclose(alpha**p + 5 * (-beta) ** p, 1)
    assert_allclose(alpha ** (p - 1), 5 * (-beta) ** (p - 1))
    # the control: the vertex of the Euclidean ball, taken to this sphere, is worse
    other = np.array([1, -0.2])
    a, b = other / (other[0] ** p + 5 * (-other[1]) ** p) ** (1 / p)
    assert (alpha - beta > a - b + 1e-4) == (p != 2)


def test_for_p_2_the_classes_form_a_simplex():
    alpha, beta = lp_ball_minimizer(4, 2)
    z = np.full((4, 4), beta) + (alpha - beta) * np.eye(4)
    m = simplex_etf(4, 3)
    assert_allclose(z @ z.T, m @ m.mT, atol=1e-12)


@pytest.mark.parametrize(("K", "p"), [(1, 2), (3, 1), (3, 0.5), (3, math.inf), (3, math.nan)])
def test_without_a_unique_minimiser_it_is_refused(K, p):
    with pytest.raises(ValueError, match=f"K = {K} and p = {p}"):
        lp_ball_minimizer(K, p)


@pytest.mark.parametrize("K", [2.5, math.nan])
def test_a_number_of_classes_is_whole(K):
    with pytest.raises(ValueError, match=f"num_classes must be a whole number, got {K}"):
        lp_ball_minimizer(K, 2)
