"""What does not depend on the scale of features or weights is the same at any scale of float64."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc import functional, metrics
from lightning_nc.functional.input_checks import all_finite
from lightning_nc.functional.minority_collapse import feature_energy_of
from lightning_nc.functional.powers_of_two import in_units_of, scale_of, scaled
from tests import reference
from tests.functional import cases

K, D = 5, 4
# 1e-150 .. 1e150; the exponent alone changes, so that the numbers are the same but for it
exponents = st.integers(-498, 498)
seeds = st.integers(0, 2**16)


def vectors(seed, *sizes):
    torch.manual_seed(seed)
    return torch.randn(*sizes, dtype=torch.float64)


def signs(K):
    return torch.where(torch.arange(K) % 2 == 0, 1, -1)


OF_FEATURES = {
    "D": functional.separation_fuzziness,
    "D of classes": functional.class_separation_fuzziness,
    "NC1": functional.variability_collapse,
    "CDNV": functional.class_distance_normalized_variance,
    "D, in one sweep": lambda h, y: pooled(metrics.SeparationFuzziness(K), h, y),
    "NC, in one sweep": lambda h, y: list(pooled(metrics.NeuralCollapse(K), h, y).values()),
}
OF_VECTORS = {
    "equinorm": functional.equinorm,
    "equiangularity": functional.equiangularity,
    "maximal angle": functional.maximal_angle,
    "ETF error": functional.simplex_etf_error,
    "uniformity": functional.hyperspherical_uniformity,
    "cosine of a group": lambda v: functional.group_cosine(v, [0, 1, 2]),
    "cosine of two groups": lambda v: functional.group_cosine(v, [0, 1], [2, 3]),
    "simplex symmetry": lambda v: list(functional.simplex_symmetry(v))[:3],
    "relative ratio": lambda v: functional.relative_ratio(v @ v.mT, torch.arange(K) % 2),
    "relative ratio of a rectangle": lambda v: functional.rectangular_relative_ratio(
        v[:2] @ v[2:].mT,
        *v.square().sum(1).split([2, 3]),
        *(torch.arange(K) % 2).split([2, 3]),
    ),
}
OF_TWO = {
    "self-duality": functional.self_duality,
    "uniform duality": functional.uniform_duality,
    "simplex plane": lambda m, w: torch.cat(functional.simplex_plane(m[:3], w[:3])),
    "simplex symmetry": lambda m, w: list(functional.simplex_symmetry(m, w)),
    "pair features": lambda m, w: functional.fit_pair_features(m, signs(K), w @ w.mT)(
        m, m, w @ w.mT
    ),
    "random features": lambda m, w: functional.fit_random_features(m, signs(K), 8)(m, m),
}


def pooled(metric, features, labels):
    for part in torch.arange(len(labels)).split(len(labels) // 3):
        metric.update(features[part], labels[part])
    return metric.compute()


@pytest.mark.parametrize("name", OF_FEATURES)
@given(exponent=exponents, seed=seeds, noise=st.sampled_from([0.5, 1e-6]))
def test_of_features(name, exponent, seed, noise):
    features, labels = cases.clusters((9, 5, 4, 3, 2), D, noise, seed=seed)
    assert_allclose(
        OF_FEATURES[name](features * 2.0**exponent, labels),
        OF_FEATURES[name](features, labels),
        rtol=1e-9,
    )


@pytest.mark.parametrize("name", OF_VECTORS)
@given(exponent=exponents, seed=seeds)
def test_of_class_vectors(name, exponent, seed):
    v = vectors(seed, K, D)
    assert_allclose(OF_VECTORS[name](v * 2.0**exponent), OF_VECTORS[name](v), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OF_TWO)
@given(first=exponents, second=exponents, seed=seeds)
def test_of_two_sets_of_class_vectors(name, first, second, seed):
    m, w = vectors(seed, 2, K, D)
    moved = OF_TWO[name](m * 2.0**first, w * 2.0**second)
    assert_allclose(moved, OF_TWO[name](m, w), rtol=1e-9, atol=1e-12)


@given(of_features=exponents, of_weights=exponents, seed=seeds)
def test_decisions(of_features, of_weights, seed):
    features, labels = cases.clusters((9, 5, 4, 3, 2), D, 1.0, seed=seed)
    weight, bias = vectors(seed, K, D), vectors(seed + 1, K)
    h, w = 2.0**of_features, 2.0**of_weights
    mismatch = functional.nearest_class_center_mismatch
    expected = mismatch(features, labels, weight, bias)
    assert mismatch(h * features, labels, w * weight, h * w * bias) == expected


@pytest.mark.parametrize("exponent", [256, 498, -256, -498])
def test_values_are_those_of_the_reference(exponent):
    M, W = cases.numpy(*vectors(0, 2, K, D))
    scale = 2.0**exponent
    means, weight = torch.from_numpy(M * scale), torch.from_numpy(W / scale)
    assert_allclose(functional.simplex_etf_error(means), reference.simplex_etf_error(M))
    assert_allclose(functional.self_duality(means, weight), reference.self_duality(M, W))


@pytest.mark.parametrize("exponent", [600, 1000, -600, -1000])
def test_numbers_beyond_the_promise_are_right_too(exponent):
    features, labels = cases.clusters((9, 5, 4, 3, 2), D, 0.5)
    for function in OF_FEATURES.values():
        far = function(features * 2.0**exponent, labels)
        assert_allclose(far, function(features, labels), rtol=1e-9)
    v, w = vectors(0, 2, K, D)
    for name in OF_VECTORS.keys() - {"relative ratio"}:  # the kernel itself would overflow
        assert_allclose(OF_VECTORS[name](v * 2.0**exponent), OF_VECTORS[name](v), atol=1e-12)
    assert_allclose(functional.self_duality(v * 2.0**exponent, w), functional.self_duality(v, w))


def test_what_has_units_is_scaled_back_or_overflows():
    features, labels = cases.clusters((3, 3), 2, 0.5)
    energy = feature_energy_of(functional.class_geometry(features, labels))
    geometry = functional.class_geometry(features * 2.0**400, labels)
    assert feature_energy_of(geometry) == energy * 2.0**800
    assert feature_energy_of(functional.class_geometry(features * 2.0**600, labels)) == math.inf


def test_moments_of_batches_of_different_sizes_pool_in_the_unit_of_the_larger():
    small, large = cases.clusters((9, 5, 4), D, 0.5), cases.clusters((6, 6, 6), D, 0.5, seed=1)
    first, second = 2.0**-200 * small[0], 2.0**-190 * large[0]
    metric = metrics.SeparationFuzziness(3)
    metric.update(first, small[1])
    metric.update(second, large[1])
    together = torch.cat([2.0**-10 * small[0], large[0]]), torch.cat([small[1], large[1]])
    assert_allclose(metric.compute(), functional.separation_fuzziness(*together), rtol=1e-9)


@given(exponent=st.integers(-1074, 1023), mantissa=st.floats(1, 2, exclude_max=True))
def test_the_scale_is_a_power_of_two_next_to_the_largest_number(exponent, mantissa):
    # from the smallest subnormal to the largest number
    largest = math.ldexp(mantissa, exponent)
    found = float(scale_of(torch.tensor([0.0, -largest, largest / 3], dtype=torch.float64)))
    assert math.frexp(found)[0] == 0.5  # a power of two
    assert found == 1 if -160 <= exponent < 160 else Fraction(found) <= Fraction(largest)
    assert found == 1 or Fraction(largest) < 2 * Fraction(found)


@pytest.mark.parametrize("number", [0.0, math.inf, math.nan])
def test_zeros_and_numbers_that_are_not_finite_have_no_scale(number):
    assert scale_of(torch.tensor([0.0, number], dtype=torch.float64)) == 1


@given(exponent=st.integers(-159, 158), seed=seeds)
def test_numbers_of_ordinary_size_are_not_touched(exponent, seed):
    v = vectors(seed, K, D).clamp(-1.9, 1.9) * 2.0**exponent
    assert scale_of(v) == 1
    assert torch.equal(scaled(v, 1), v)
    assert in_units_of(float(scale_of(v)), v) is v


@pytest.mark.parametrize("of_features", [1e-200, 1e-310])
@pytest.mark.parametrize("of_rows", [1.0, 1e-120])
def test_the_bias_decides_between_features_however_small(of_features, of_rows):
    features, labels = cases.clusters((9, 5, 4, 3, 2), D, 0.1)
    means = torch.stack([features[labels == k].mean(0) for k in range(K)])
    nearest = torch.cdist(features, means).argmin(1)
    for bias in ([1.0, 2, 5, 4, 3], [-1.0, -2, -5, -4, -0.5]):
        chosen = torch.tensor(bias).argmax()
        W = of_rows * vectors(0, K, D)
        mismatch = functional.nearest_class_center_mismatch(
            of_features * features.double(), labels, W, torch.tensor(bias)
        )
        assert mismatch == (nearest != chosen).double().mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_noticed(number, dtype):
    largest = torch.finfo(dtype).max
    x = torch.tensor([[0, largest], [-largest, 1]], dtype=dtype)
    assert all_finite(x)
    assert all_finite(x[:0])
    for place in range(4):
        y = x.clone()
        y.view(-1)[place] = number
        assert not all_finite(y)
        y.view(-1)[(place + 1) % 4] = torch.nan
        assert not all_finite(y)
