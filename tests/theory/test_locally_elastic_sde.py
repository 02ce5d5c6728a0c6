import math

import pytest
import torch
from numpy.testing import assert_allclose

from lightning_nc.functional import separation_fuzziness
from lightning_nc.theory.convex_hulls import linearly_separable
from lightning_nc.theory.locally_elastic_sde import locally_elastic_sde

STARTS = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]])
BORDER = 1.0  # beta
SEEDS = range(3)


def features(alpha, time, seed=0, noise=0.3, beta=BORDER):
    X = locally_elastic_sde(STARTS, 30, alpha, beta, time, noise, seed=seed)
    return X.flatten(0, 1), torch.arange(3).repeat_interleave(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_classes_separate_only_where_the_effect_within_them_is_larger(seed):
    def fuzziness(alpha):
        return [float(separation_fuzziness(*features(alpha, t, seed))) for t in (1, 20)]

    for alpha in (1.5, 2.0, 3.0):
        early, late = fuzziness(alpha)
        assert late < early
        assert linearly_separable(*features(alpha, 20, seed)).sum() == 6
    for alpha in (-2.0, 0.0, 0.5, 1.0):  # up to the border itself
        early, late = fuzziness(alpha)
        assert late > 5 * early
        assert linearly_separable(*features(alpha, 20, seed)).sum() == 0


@pytest.mark.parametrize("alpha", [0.4, 1.0, 1.6, 2.5])
def test_differences_grow_at_the_rate_of_alpha_minus_beta(alpha):
    t = 4.0
    X = locally_elastic_sde(STARTS, 2, alpha, BORDER, t, noise=0)
    m, start = X.mean(1), STARTS.double()
    grown = (start - start.mean(0)) * math.exp((alpha - BORDER) * t / 3)
    assert_allclose(m - m.mean(0), grown, rtol=1e-9, atol=1e-12)
    assert_allclose(m.mean(0), start.mean(0) * math.exp((alpha + 2 * BORDER) * t / 3), rtol=1e-9)


def test_within_a_class_samples_spread_as_their_noise():
    X = locally_elastic_sde(STARTS, 2000, 2.0, 1.0, time=3.0, noise=0.5)
    assert_allclose(X.var(1, correction=1), 0.25 * 3, rtol=0.15)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_it_is_the_limit_of_small_steps_on_random_samples(alpha):
    generator = torch.Generator().manual_seed(0)
    n, t, h = 5, 2.0, 1e-3
    X = STARTS.double()[:, None].repeat(1, n, 1)
    for _ in range(round(t / h)):
        label, sample = (int(torch.randint(size, (), generator=generator)) for size in (3, n))
        effect = torch.full((3, 1, 1), BORDER, dtype=torch.float64)
        effect[label] = alpha
        X = X + h * effect * X[label, sample]
    expected = locally_elastic_sde(STARTS, n, alpha, BORDER, t, noise=0)
    assert_allclose(X, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"starts": torch.ones(1, 2)},
        {"starts": torch.ones(3)},
        {"samples_per_class": 0},
        {"steps": 0},
        {"time": -1.0},
        {"noise": -0.5},
        {"samples_per_class": 1.5},
        {"starts": torch.tensor([[0.0], [math.nan]])},
        {"alpha": math.nan},
        {"beta": math.inf},
        {"time": math.inf},
        {"noise": math.nan},
        {"time": 1000.0},
    ],
)
def test_what_cannot_be_simulated_is_refused(wrong):
    right = {"starts": STARTS, "samples_per_class": 2, "alpha": 1.0, "beta": 0.0, "time": 1.0}
    with pytest.raises(ValueError, match="got"):
        locally_elastic_sde(**right | wrong)
