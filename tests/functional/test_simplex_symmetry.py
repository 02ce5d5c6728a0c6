import pytest
import torch
from numpy.testing import assert_allclose

from lightning_nc.functional import simplex_symmetry
from tests import reference
from tests.functional import cases


def test_a_simplex_and_its_classifier_are_ideal(simplex_etf):
    for deviation in simplex_symmetry(2 * simplex_etf, 3 * simplex_etf):
        assert_allclose(deviation, 0, atol=1e-14)


def test_three_values_on_a_line():
    # distances 1, 2, 3; products <y_i - y_l, y_l - y_j>: l=0 -> -3, l=1 -> 2, l=3 -> -6
    symmetry = simplex_symmetry(torch.tensor([[0.0], [1.0], [3.0]]))
    assert_allclose(symmetry.distances, (2 / 3) ** 0.5 / 2, rtol=1e-12)
    mean, square = -7 / 3, 49 / 3
    assert_allclose(symmetry.angles, (square - mean**2) ** 0.5 / -mean, rtol=1e-12)
    assert_allclose(symmetry.center, (4 / 3) / (10 / 3) ** 0.5, rtol=1e-12)
    assert symmetry.isometry.isnan()
    assert symmetry.alignment.isnan()


def test_only_the_span_of_the_values_must_be_mapped_isometrically():
    root3 = 3**0.5
    values = torch.tensor([[2, 0, 0], [-1, root3, 0], [-1, -root3, 0]], dtype=torch.float64) / 2
    weight = values + torch.tensor([0.0, 0.0, 9.0]).double()  # large off the span
    symmetry = simplex_symmetry(values, weight)
    assert symmetry.isometry < 1e-14
    assert_allclose(symmetry.alignment, 1 - 1 / 82**0.5, rtol=1e-12)


def test_a_classifier_that_points_away_has_alignment_two(simplex_etf):
    symmetry = simplex_symmetry(simplex_etf + 5, -simplex_etf)
    assert_allclose(symmetry.alignment, 2, rtol=1e-12)
    assert symmetry.isometry < 1e-12


@pytest.mark.parametrize(("K", "d"), [(3, 2), (4, 9), (6, 3), (10, 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deviations_are_those_of_the_formulas(K, d, dtype):
    values, weight = torch.randn(K, d, dtype=dtype), torch.randn(K, d, dtype=dtype)
    expected = reference.simplex_symmetry(*cases.numpy(values, weight))
    assert_allclose(simplex_symmetry(values, weight), expected, rtol=1e-9)


@pytest.mark.parametrize("deviation", [1e-5, 1e-3])
def test_values_close_to_a_simplex_far_from_the_origin_lose_no_digits(deviation):
    simplex = torch.eye(12, dtype=torch.float64) + 30
    values, weight = (simplex + deviation * torch.randn(12, 12).double() for _ in range(2))
    expected = reference.simplex_symmetry(*cases.numpy(values, weight))
    assert_allclose(simplex_symmetry(values, weight)[:4], expected[:4], rtol=1e-9)


@pytest.mark.parametrize("gap", [1e-3, 1e-7])
def test_values_of_merged_classes_lose_no_digits(gap):
    values = torch.randn(3, 5).double().repeat(3, 1) + gap * torch.randn(9, 5).double()
    expected = reference.simplex_symmetry(*cases.numpy(values, values))
    assert_allclose(simplex_symmetry(values)[:3], expected[:3], rtol=1e-9)


def test_deviations_keep_under_rotation_scale_and_order():
    values, weight = torch.randn(2, 5, 4, dtype=torch.float64)
    rotation, order = torch.linalg.qr(torch.randn(4, 4).double())[0], torch.randperm(5)
    moved = simplex_symmetry(7 * (values @ rotation)[order], 0.1 * (weight @ rotation)[order])
    assert_allclose(moved, simplex_symmetry(values, weight), rtol=1e-10)


def test_two_values_have_no_angles():
    symmetry = simplex_symmetry(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert symmetry.angles.isnan()
    assert symmetry.distances == 0
    assert symmetry.center == 0


def test_coincident_values_are_nan():
    symmetry = simplex_symmetry(torch.zeros(3, 2), torch.ones(3, 2))
    assert symmetry.distances.isnan()
    assert symmetry.angles.isnan()
    assert symmetry.center.isnan()
    assert symmetry.alignment.isnan()


def test_deviations_are_never_negative():
    for seed in range(10):
        torch.manual_seed(seed)
        values = torch.randn(4, 6, dtype=torch.float64)
        for deviation in simplex_symmetry(values, 3 * (values - values.mean(0))):
            assert deviation >= 0


@pytest.mark.parametrize("shape", [(3,), (1, 4), (2, 3, 4)])
def test_values_have_a_row_for_each_of_two_classes_or_more(shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        simplex_symmetry(torch.ones(shape))


def test_a_classifier_has_a_row_for_each_value():
    with pytest.raises(ValueError, match=r"\(3, 4\) for values of shape \(4, 3\)"):
        simplex_symmetry(torch.ones(4, 3), torch.ones(3, 4))
