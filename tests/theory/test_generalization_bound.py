import math

import pytest
import torch
from numpy.testing import assert_allclose

from lightning_nc.theory.generalization_bound import generalization_bounds
from lightning_nc.theory.logistic import (
    logistic_gradients,
    logistic_hessian,
    logistic_losses,
    logistic_regression,
)
from lightning_nc.theory.stability import influence_stability

M, MU = 200, 0.2


def three_or_eight(seed):
    """Digits, of which the first M are for training."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, digits = (torch.as_tensor(each) for each in datasets.load_digits(return_X_y=True))
    chosen = ((digits == 3) | (digits == 8)).nonzero().flatten()
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))]
    ones = torch.ones(len(chosen), 1, dtype=torch.float64)
    return torch.cat([images[chosen] / 16, ones], 1), (digits[chosen] == 8).long()


def trained(x, y, mu):
    """The generalisation gap, the influence of samples, and the largest loss."""
    w = logistic_regression(x[:M], y[:M], mu)
    losses = logistic_losses(x, y, w)
    g, H = logistic_gradients(x, y, w), logistic_hessian(x[:M], w, mu)
    gap = losses[M:].mean() - losses[:M].mean()
    return float(gap), influence_stability(g[:M], H, g), float(losses.max())


@pytest.mark.parametrize("seed", range(3))
def test_the_gap_is_below_the_bound_and_the_bound_below_those_by_uniform_stability(seed):
    gap, beta, largest = trained(*three_or_eight(seed), MU)
    bounds = generalization_bounds(beta, largest)
    assert gap < bounds.locally_elastic / 10
    assert bounds.locally_elastic < bounds.classic / 1.5
    assert bounds.locally_elastic < bounds.uniform / 3


def test_a_model_that_remembers_its_samples_breaks_the_bound_of_one_that_does_not():
    x, y = three_or_eight(0)
    _, beta, largest = trained(x, y, MU)
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    wide = torch.cat([x, torch.randn(len(x), 300, generator=torch.Generator().manual_seed(1))], 1)
    gap, its_own, its_largest = trained(wide, shuffled, mu=1e-5)
    assert gap > generalization_bounds(beta, largest).locally_elastic
    assert gap < generalization_bounds(its_own, its_largest).locally_elastic


def test_the_bound_is_where_the_probability_falls_to_that_of_failure():
    beta = torch.rand(50, 20, generator=torch.Generator().manual_seed(0)) / 50
    M_l, delta = 3.0, 0.1
    E = float((50 * beta.double()).mean(0).max())
    eps = float(generalization_bounds(beta, M_l, delta).locally_elastic) - 2 * E / 50
    assert_allclose(2 * math.exp(-50 * eps**2 / (8 * (2 * E + M_l) ** 2)), delta)


def test_where_every_sample_matters_alike_local_elasticity_gains_nothing():
    bounds = generalization_bounds(torch.full((50, 20), 0.1), 3.0)
    assert_allclose(bounds.locally_elastic, bounds.uniform)
    assert bounds.classic < bounds.locally_elastic


@pytest.mark.parametrize(
    ("largest", "failure"), [(0.0, 0.1), (-1.0, 0.1), (math.inf, 0.1), (1.0, 0.0), (1.0, 1.0)]
)
def test_what_bounds_nothing_is_refused(largest, failure):
    with pytest.raises(ValueError, match=f"got {largest} and {failure}"):
        generalization_bounds(torch.ones(2, 2), largest, failure)
