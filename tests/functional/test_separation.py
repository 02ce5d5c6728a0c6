import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc.functional import (
    class_separation_fuzziness,
    separation_ability,
    separation_fuzziness,
    separation_law,
    separation_sensitivity,
)
from tests import precise, reference
from tests.fashion_mnist import fashion_mnist, needs_fashion_mnist
from tests.functional import cases

LINE = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]]), torch.tensor([0, 0, 1, 1])


def test_fuzziness_of_four_points_on_a_line():
    assert_allclose(separation_fuzziness(*LINE), 0.25, rtol=1e-14)


def test_fuzziness_weighs_classes_by_their_samples():
    # means 3 and -1, mu = 0, SSB = 1/4 9 + 3/4 1 = 3, SSW = (1 + 0 + 1) / 4
    features, labels = torch.tensor([[3.0], [-2.0], [-1.0], [0.0]]), torch.tensor([0, 1, 1, 1])
    assert_allclose(separation_fuzziness(features, labels), 0.5 / 3, rtol=1e-14)
    per_class = class_separation_fuzziness(features, labels)
    assert_allclose(per_class, [0, 2 / 3 / 3], rtol=1e-14)


def test_noise_across_the_signal_directions_does_not_count():
    features = torch.tensor([[2.0, 5.0], [2.0, -5.0], [-2.0, 7.0], [-2.0, -7.0]])
    assert separation_fuzziness(features, torch.tensor([0, 0, 1, 1])) == 0


def test_fuzziness_is_not_divided_by_dimension_or_classes():
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    noise = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    features = (corners[:, None] + noise).flatten(0, 1)  # SSB = I, SSW = I / 8
    assert_allclose(separation_fuzziness(features, torch.arange(4).repeat_interleave(4)), 0.25)


@pytest.mark.parametrize("case", cases.PLAIN)
def test_fuzziness_is_that_of_the_formulas(case):
    features, labels = cases.PLAIN[case]()
    arrays = cases.numpy(features, labels)
    assert_allclose(
        separation_fuzziness(features, labels), reference.separation_fuzziness(*arrays), rtol=1e-9
    )
    assert_allclose(
        class_separation_fuzziness(features, labels),
        reference.class_separation_fuzziness(*arrays),
        rtol=1e-9,
        atol=1e-14,  # zero for classes of one sample
    )


@needs_fashion_mnist
@pytest.mark.parametrize("case", cases.FASHION)
def test_fuzziness_of_fashion_mnist_is_that_of_the_formulas(case):
    features, labels = cases.FASHION[case]()
    expected = reference.separation_fuzziness(*cases.numpy(features, labels))
    assert_allclose(separation_fuzziness(features, labels), expected, rtol=1e-9)


@needs_fashion_mnist
def test_fuzziness_of_all_fashion_mnist_pixels_is_the_known_one():
    images, labels = fashion_mnist("train")
    assert_allclose(separation_fuzziness(images.flatten(1), labels), 22.7, rtol=0.005)


@pytest.mark.parametrize("case", cases.HARD)
def test_fuzziness_of_ill_conditioned_features_is_exact(case):
    features, labels = cases.HARD[case]()
    expected = precise.separation_fuzziness(*cases.numpy(features, labels))
    assert_allclose(separation_fuzziness(features, labels), expected, rtol=1e-9)
    shares = torch.bincount(labels).double() / len(labels)
    per_class = class_separation_fuzziness(features, labels)
    assert_allclose(shares @ per_class, expected, rtol=1e-9)


def test_collapsed_features_are_tested_at_the_fuzziness_they_claim():
    D = precise.separation_fuzziness(*cases.numpy(*cases.HARD["collapsed"]()))
    assert 1e-13 < D < 1e-11


def test_references_agree_where_both_are_exact():
    for case in ("balanced", "imbalanced", "more classes than dimensions, imbalanced"):
        arrays = cases.numpy(*cases.PLAIN[case]())
        assert_allclose(
            precise.separation_fuzziness(*arrays),
            reference.separation_fuzziness(*arrays),
            rtol=1e-11,
        )


def test_features_are_left_as_they_were():
    features, labels = cases.clusters((5, 4), 3, 0.3)
    before = features.clone()
    separation_fuzziness(features, labels)
    assert torch.equal(features, before)


def test_a_collapsed_set_has_no_fuzziness_at_all():
    means = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]])
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    assert separation_fuzziness(means[labels], labels) == 0
    assert class_separation_fuzziness(means[labels], labels).eq(0).all()


@pytest.mark.parametrize("rho", [0.11, 0.35, 0.38, 0.45, 0.53])  # r of some is rounded to beyond -1
def test_the_law_recovers_an_exact_geometric_decay(rho):
    law = separation_law(8.0 * rho ** torch.arange(8, dtype=torch.float64))
    assert_allclose(law.rho, rho, rtol=1e-12)
    assert_allclose(law.intercept, math.log(8), rtol=1e-12)
    assert_allclose(law.pearson_r, -1, rtol=1e-12)
    assert_allclose(law.half_life, math.log(2) / math.log(1 / rho), rtol=1e-12)
    assert law.pearson_r >= -1


def test_the_law_is_the_line_of_polyfit_and_the_correlation_of_corrcoef():
    for seed in range(5):
        fuzziness = np.random.default_rng(seed).lognormal(size=3 + seed)
        for ours, theirs in zip(
            separation_law(torch.from_numpy(fuzziness)),
            reference.separation_law(fuzziness),
            strict=True,
        ):
            assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_law_is_nan_where_a_fuzziness_is_not_positive_and_finite(bad, place):
    for fuzziness in (torch.tensor([4.0, 2.0, 1.0]), torch.tensor([4.0, 2.0, 1.0, 3.0, 5.0])):
        fuzziness[place] = bad
        assert all(value.isnan() for value in separation_law(fuzziness))
    assert all(value.isnan() for value in separation_law(torch.tensor([4.0, bad])))


def test_two_points_have_a_rate_but_no_correlation():
    law = separation_law(torch.tensor([4.0, 1.0]))
    assert_allclose([law.rho, law.half_life], [0.25, 0.5], rtol=1e-12)
    assert law.pearson_r.isnan()


@pytest.mark.parametrize("D", [1.0, 1.1, 13.37, 1e-5, 1 / 3])
@pytest.mark.parametrize("layers", [4, 7, 9, 23])
def test_a_constant_fuzziness_never_halves_and_has_no_correlation(D, layers):
    law = separation_law(torch.full((layers,), D, dtype=torch.float64))
    assert law.rho == 1
    assert law.half_life.isinf()
    assert law.pearson_r.isnan()


def test_rounding_errors_of_a_constant_fuzziness_are_no_law():
    # rotations change no D, but the last digits of features
    features, labels = cases.clusters((9, 7, 8), 2, 0.3)
    Q = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    D = [separation_fuzziness(features.double() @ Q.matrix_power(t), labels) for t in range(9)]
    law = separation_law(torch.stack(D))
    assert len({*map(float, D)}) > 1
    assert law.rho == 1
    assert law.half_life.isinf()
    assert law.pearson_r.isnan()
    assert_allclose(separation_law((-1e-9 * torch.arange(4).double()).exp()).pearson_r, -1)


def test_a_growing_fuzziness_has_a_rate_above_one_and_a_negative_half_life():
    law = separation_law(torch.tensor([1.0, 2.0, 4.0]))
    assert_allclose([law.rho, law.half_life, law.pearson_r], [2, -1, 1], rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
def test_the_law_needs_two_depths_on_one_axis(shape):
    with pytest.raises(ValueError, match="two or more depths.*" + re.escape(str(tuple(shape)))):
        separation_law(torch.ones(shape))


def test_ability_is_last_by_first_and_sensitivity_smallest_for_equal_ratios():
    fuzziness = torch.tensor([8.0, 2.0, 1.0, 4.0])
    assert separation_ability(fuzziness) == 0.5
    assert separation_sensitivity(fuzziness) == 4 + 2 + 0.25
    assert separation_sensitivity(fuzziness, absolute=True) == 0.5 * 6.25
    equal = torch.tensor([8.0, 4.0, 2.0, 1.0])
    assert separation_sensitivity(equal) < separation_sensitivity(torch.tensor([8.0, 5.0, 2.0, 1]))


def perturbed(fuzziness, eps):
    """R after every ratio of neighbouring D has changed by eps."""
    return (fuzziness[1:] / fuzziness[:-1] + eps).prod()


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=20))
def test_the_sensitivity_is_the_derivative_of_the_ability_by_a_change_of_all_ratios(logarithms):
    D, eps = torch.tensor(logarithms, dtype=torch.float64).exp(), 1e-6
    R = separation_ability(D)
    difference = (perturbed(D, eps) - perturbed(D, -eps)) / (2 * eps)
    assert_allclose(separation_sensitivity(D, absolute=True), difference, rtol=1e-4)
    assert_allclose(separation_sensitivity(D), difference / R, rtol=1e-4)


@pytest.mark.parametrize("layers", [2, 4, 8])
def test_no_random_search_finds_ratios_that_are_less_sensitive_than_equal_ones(layers):
    generator = torch.Generator().manual_seed(0)
    R, equal = 0.01, torch.linspace(0, 1, layers + 1, dtype=torch.float64)
    least = separation_sensitivity(R**equal)
    assert_allclose(least, layers * R ** (-1 / layers))
    for width in (1.0, 0.1, 0.01):  # ever closer to equal ratios
        for _ in range(300):
            inner = equal[1:-1] + width * torch.randn(layers - 1, generator=generator).double()
            found = R ** torch.cat([equal[:1], inner, equal[-1:]])
            assert separation_sensitivity(found) >= least * (1 - 1e-12)
            assert separation_sensitivity(found, True) >= R * least * (1 - 1e-12)
