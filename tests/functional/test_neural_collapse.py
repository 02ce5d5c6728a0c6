import math

import pytest
import torch
from numpy.testing import assert_allclose

from lightning_nc.functional import (
    class_distance_normalized_variance,
    class_geometry,
    equiangularity,
    equinorm,
    hyperspherical_uniformity,
    maximal_angle,
    nearest_class_center_mismatch,
    self_duality,
    simplex_etf_error,
    uniform_duality,
    variability_collapse,
)
from lightning_nc.functional.classifier import two_row_head
from lightning_nc.functional.cosines import centred
from lightning_nc.functional.norms_and_angles import undefined_without_angles
from tests import precise, reference
from tests.fashion_mnist import needs_fashion_mnist
from tests.functional import cases

OF_VECTORS = [
    equinorm,
    equiangularity,
    maximal_angle,
    hyperspherical_uniformity,
    simplex_etf_error,
]


def test_variability_collapse_weighs_every_class_the_same():
    # means 3 and -1, mu_G = 1, Sigma_B = 4, Sigma_W = (0 + 1 + 0 + 1) / 4, K = 2
    features, labels = torch.tensor([[3.0], [-2.0], [-1.0], [0.0]]), torch.tensor([0, 1, 1, 1])
    assert_allclose(variability_collapse(features, labels), 0.5 / 4 / 2, rtol=1e-14)


def test_cdnv_averages_over_pairs_of_classes():
    # means 0, 2, 6; v = 1, 0, 4: (1/8 + 5/72 + 4/32) / 3
    features = torch.tensor([[1.0], [-1.0], [2.0], [8.0], [4.0]])
    cdnv = class_distance_normalized_variance(features, torch.tensor([0, 0, 1, 2, 2]))
    assert_allclose(cdnv, (1 / 8 + 5 / 72 + 4 / 32) / 3, rtol=1e-14)


def test_equinorm_uses_the_unbiased_deviation_over_classes():
    assert_allclose(equinorm(torch.diag(torch.tensor([3.0, 4.0, 5.0]))), 1 / 4, rtol=1e-14)


def test_equiangularity_uses_the_population_deviation_over_pairs():
    vectors = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 3.0]])  # cosines -1, 0, 0
    assert_allclose(equiangularity(vectors), math.sqrt(2) / 3, rtol=1e-14)
    assert_allclose(maximal_angle(vectors), 1 / 2, rtol=1e-14)


def test_uniformity_is_zero_for_a_simplex_and_small_for_more_classes_than_it_has_room_for():
    simplex = torch.eye(4) - 1 / 4
    assert_allclose(hyperspherical_uniformity(3 * simplex), 0, atol=1e-14)
    hexagon = torch.tensor([[math.cos(t), math.sin(t)] for t in torch.arange(6) * math.pi / 3])
    # six pairs at distance 1, six at sqrt(3), three at 2
    logarithms = [0.0] * 6 + [math.log(3) / 2] * 6 + [math.log(2)] * 3
    expected = torch.tensor(logarithms, dtype=torch.float64).std(correction=0)
    assert_allclose(hyperspherical_uniformity(hexagon.double()), expected, rtol=1e-6)
    assert hyperspherical_uniformity(torch.rand(6, 2)) > hyperspherical_uniformity(hexagon)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-6])
def test_uniformity_is_accurate_for_means_close_to_each_other(gap):
    close = torch.tensor([[1.0, gap, 0], [1, -gap, 0], [0, 0, 1]], dtype=torch.float64)
    found = hyperspherical_uniformity(close)
    assert_allclose(found, reference.hyperspherical_uniformity(close.numpy()), rtol=1e-12)


def test_uniform_duality_is_zero_where_all_rows_agree_to_the_same_degree():
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    turned = torch.tensor([[1.0, 1.0], [-3.0, -3.0]])
    assert_allclose(uniform_duality(means, turned), 0, atol=1e-14)
    assert self_duality(means, turned) > 0.1
    assert uniform_duality(torch.ones(2, 2), turned).isnan()
    with pytest.raises(ValueError, match="of the same shape"):
        uniform_duality(means, turned[:1])


def test_vectors_are_taken_as_given_but_means_are_centred():
    vectors = torch.tensor([[3.0, 0.0], [5.0, 0.0], [0.0, 4.0]])
    shift = torch.tensor([10.0, -7.0])
    for function in OF_VECTORS[:-1]:
        assert not torch.isclose(function(vectors), function(vectors + shift))
    assert_allclose(simplex_etf_error(vectors), simplex_etf_error(vectors + shift), rtol=1e-12)


def test_self_duality_of_opposite_classifier_is_four():
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert_allclose(self_duality(means, -3 * means), 4, rtol=1e-14)
    assert_allclose(self_duality(means + 30, 3 * means), 0, atol=1e-25)


def test_self_duality_names_shapes_that_differ():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2, 3\)"):
        self_duality(torch.ones(3, 2), torch.ones(2, 3))


def test_a_simplex_etf_is_ideal(simplex_etf):
    for function in OF_VECTORS:
        assert_allclose(function(3 * simplex_etf), 0, atol=1e-14)
    assert_allclose(simplex_etf_error(3 * simplex_etf + 30), 0, atol=1e-13)
    assert_allclose(self_duality(simplex_etf, 2 * simplex_etf), 0, atol=1e-25)


def simplex_geometry(means):
    geometry = class_geometry(means, torch.arange(len(means)))
    M = centred(geometry.means)
    return [undefined_without_angles(formula(M), geometry) for formula in OF_VECTORS]


def test_two_classes_have_no_simplex_to_speak_of():
    values = simplex_geometry(torch.tensor([[1.0, 2.0], [5.0, -3.0]]))
    assert len(values) == len(OF_VECTORS)
    assert all(value.isnan() for value in values)


def test_means_off_a_simplex_are_not_ideal(simplex_etf):
    longer = torch.cat([2 * simplex_etf[:1], simplex_etf[1:]])
    assert all(value < 1e-13 for value in simplex_geometry(simplex_etf + 3))
    assert all(value > 0.01 for value in simplex_geometry(longer))


def test_one_logit_is_read_as_two_opposite_rows():
    weight, bias = two_row_head(torch.tensor([[4.0, -2.0]]), torch.tensor([2.0]))
    assert weight.tolist() == [[-2, 1], [2, -1]]
    assert bias.tolist() == [-1, 1]
    assert two_row_head(torch.ones(1, 3), None)[1] is None


def test_two_vectors_have_one_angle_and_a_zero_vector_none():
    assert equiangularity(torch.eye(2)).isnan()
    assert maximal_angle(torch.eye(2)) == 1
    assert hyperspherical_uniformity(torch.eye(2)).isnan()
    assert hyperspherical_uniformity(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])).isnan()
    assert hyperspherical_uniformity(torch.tensor([[49.0], [1.0], [-50.0]])).isnan()
    line = torch.tensor([[0.1, 0.7, -0.3, 0.9]], dtype=torch.float64)
    for lengths in ([3.0, 1.7, -4.7], [0.3, 1.1, -1.4], [0.9, 7.0, 0.1]):  # of means on a line
        on_a_line = torch.tensor(lengths)[:, None] * line
        assert hyperspherical_uniformity(on_a_line).isnan()
    for function in (equiangularity, maximal_angle, hyperspherical_uniformity):
        assert function(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).isnan()
        assert function(torch.tensor([0.0, 1.0, -1.0])[:, None]).isnan()  # more than dimensions
    for function in (equinorm, equiangularity, maximal_angle, hyperspherical_uniformity):
        no_pair = function(torch.ones(1, 2))
        assert no_pair.isnan()
        assert no_pair.dtype == torch.float64
    assert simplex_etf_error(torch.ones(1, 2)).isnan()
    assert equinorm(torch.zeros(3, 2)).isnan()
    assert simplex_etf_error(torch.full((3, 2), 0.5)).isnan()
    assert self_duality(torch.ones(3, 2), torch.zeros(3, 2)).isnan()


def assert_as_the_formulas_say(features, labels):
    for ours in (variability_collapse, class_distance_normalized_variance):
        expected = getattr(reference, ours.__name__)(*cases.numpy(features, labels))
        assert_allclose(ours(features, labels), expected, rtol=1e-9)


@pytest.mark.parametrize("case", cases.PLAIN)
def test_features_measure_as_the_formulas_say(case):
    features, labels = cases.PLAIN[case]()
    assert_as_the_formulas_say(features, labels)


@needs_fashion_mnist
@pytest.mark.parametrize("case", cases.FASHION)
def test_fashion_mnist_measures_as_the_formulas_say(case):
    features, labels = cases.FASHION[case]()
    assert_as_the_formulas_say(features, labels)
    weight, bias = torch.randn(10, features.shape[1]), torch.randn(10)
    mismatch = nearest_class_center_mismatch(features, labels, weight, bias)
    expected = reference.nearest_class_center_mismatch(*cases.numpy(features, labels, weight, bias))
    assert_allclose(mismatch, expected, atol=1e-15)


@pytest.mark.parametrize("case", cases.HARD)
def test_variability_of_ill_conditioned_features_is_exact(case):
    features, labels = cases.HARD[case]()
    expected = precise.variability_collapse(*cases.numpy(features, labels))
    assert_allclose(variability_collapse(features, labels), expected, rtol=1e-9)


@pytest.mark.parametrize("K", [3, 4, 10])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_vectors_measure_as_the_formulas_say(K, dtype):
    means, weight = torch.randn(K, 6).to(dtype), torch.randn(K, 6).to(dtype)
    arrays = cases.numpy(means, weight)
    for function in OF_VECTORS:
        value = function(means)
        assert value.dtype == torch.float64
        assert_allclose(value, getattr(reference, function.__name__)(arrays[0]), rtol=1e-9)
    assert_allclose(self_duality(means, weight), reference.self_duality(*arrays), rtol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_nearest_class_center_counts_disagreements(offset):
    features, labels = cases.clusters((30, 20, 10), 4, noise=1.0, offset=offset)
    for seed in range(4):
        torch.manual_seed(seed)
        weight, bias = torch.randn(3, 4), torch.randn(3)
        expected = reference.nearest_class_center_mismatch(
            *cases.numpy(features, labels, weight, bias)
        )
        mismatch = nearest_class_center_mismatch(features, labels, weight, bias)
        assert_allclose(mismatch, expected, atol=1e-15)


def test_the_bias_counts_in_the_nearest_class_center():
    features, labels = torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1])
    weight = torch.tensor([[0.0], [1.0]])
    assert nearest_class_center_mismatch(features, labels, weight, torch.tensor([0.0, -2])) == 0
    assert nearest_class_center_mismatch(features, labels, weight, torch.tensor([0.0, -9])) == 0.5
    assert nearest_class_center_mismatch(features, labels, weight, torch.tensor([0.0, 9])) == 0.5


def test_a_nearest_class_center_needs_a_row_and_samples_for_every_class():
    features = torch.tensor([[0.0], [4.0]])
    with pytest.raises(ValueError, match="Label 3 "):
        nearest_class_center_mismatch(features, torch.tensor([0, 3]), torch.ones(3, 1))
    with pytest.raises(ValueError, match="No samples of class 2 among 3"):
        nearest_class_center_mismatch(features, torch.tensor([0, 1]), torch.ones(3, 1))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_classifier_that_is_nan_decides_nothing(name):
    numbers = {"weight": torch.ones(2, 1), "bias": torch.zeros(2)}
    numbers[name][1] = math.nan
    features, labels = torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=f"The {name} must not be NaN"):
        nearest_class_center_mismatch(features, labels, **numbers)


def test_coincident_means_make_cdnv_infinite():
    features, labels = torch.tensor([[1.0], [-1], [2], [-2], [9]]), torch.tensor([0, 0, 1, 1, 2])
    assert class_distance_normalized_variance(features, labels) == math.inf
