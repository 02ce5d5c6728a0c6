import pytest
import torch
from numpy.testing import assert_allclose

from lightning_nc.functional import equinorm, maximal_angle
from lightning_nc.theory import simplex_etf


@pytest.mark.parametrize(("K", "d"), [(2, 1), (2, 5), (3, 2), (10, 9), (10, 64), (300, 299)])
@pytest.mark.parametrize("seed", [None, 0])
def test_vectors_have_norm_one_the_same_cosine_and_sum_to_zero(K, d, seed):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    etf = simplex_etf(K, d, generator)
    assert etf.shape == (K, d)
    assert etf.dtype == torch.float64
    expected = (torch.eye(K, dtype=torch.float64) * K - 1) / (K - 1)
    assert_allclose(etf @ etf.mT, expected, atol=1e-13)
    assert_allclose(etf.sum(0), 0, atol=1e-12)
    assert equinorm(etf) < 1e-12
    assert maximal_angle(etf) < 1e-12


def test_it_is_the_same_each_time_unless_rotated():
    state = torch.random.get_rng_state()
    assert torch.equal(simplex_etf(5, 8), simplex_etf(5, 8))
    one, other = (simplex_etf(5, 8, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert not torch.allclose(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("K", "d"), [(1, 3), (0, 0), (5, 3)])
def test_a_simplex_that_does_not_fit_is_refused(K, d):
    with pytest.raises(ValueError, match=f"got K = {K}, d = {d}"):
        simplex_etf(K, d)


def test_sizes_that_are_not_whole_are_refused():
    with pytest.raises(ValueError, match=r"K must be a whole number, got 3\.5"):
        simplex_etf(3.5, 5)
