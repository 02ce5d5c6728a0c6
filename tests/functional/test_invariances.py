import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc import functional
from tests.functional import cases

OF_FEATURES = [
    functional.separation_fuzziness,
    functional.variability_collapse,
    functional.class_distance_normalized_variance,
]
OF_MEANS = [
    functional.equinorm,
    functional.equiangularity,
    functional.maximal_angle,
    functional.simplex_etf_error,
    functional.hyperspherical_uniformity,
]
seeds = st.integers(0, 2**16)
shifts = st.floats(-30, 30)
scales = st.floats(1e-4, 1e4)
signs = st.sampled_from([-1.0, 1.0])
counts = st.lists(st.integers(2, 12), min_size=3, max_size=6)


def rotation(d):
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]


@pytest.mark.parametrize("function", OF_FEATURES)
@given(counts=counts, d=st.integers(1, 8), seed=seeds, shift=shifts, scale=scales, sign=signs)
def test_features_may_be_rotated_moved_and_scaled(function, counts, d, seed, shift, scale, sign):
    torch.manual_seed(seed)
    features, labels = cases.clusters(counts, d, 0.5, seed=seed)
    shift = shift * torch.randn(d, dtype=torch.float64)
    moved = sign * scale * (features @ rotation(d) + shift)
    value = function(features, labels)
    assert value >= 0
    assert_allclose(function(moved, labels), value, rtol=1e-8)


@given(counts=counts, d=st.integers(2, 6), seed=seeds)
def test_fuzziness_and_nc1_hold_under_any_invertible_map_of_independent_means(counts, d, seed):
    d = d + len(counts)
    torch.manual_seed(seed)
    features, labels = cases.clusters(counts, d, 0.5, seed=seed)
    signal = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0][:, : len(counts) - 1]
    # noise within the span of the means, so that no direction is projected away
    features = features @ signal
    mix = rotation(len(counts) - 1) + 0.2 * torch.randn(len(counts) - 1, len(counts) - 1).double()
    for function in OF_FEATURES[:2]:
        assert_allclose(function(features @ mix, labels), function(features, labels), rtol=1e-6)


@pytest.mark.parametrize("function", OF_FEATURES)
@given(counts=counts, d=st.integers(1, 8), seed=seeds)
def test_samples_and_classes_come_in_any_order(function, counts, d, seed):
    torch.manual_seed(seed)
    features, labels = cases.clusters(counts, d, 0.5, seed=seed)
    samples, classes = torch.randperm(len(labels)), torch.randperm(len(counts))
    expected = function(features, labels)
    assert_allclose(function(features[samples], labels[samples]), expected, rtol=1e-9)
    assert_allclose(function(features, classes[labels]), expected, rtol=1e-9)


@given(counts=counts, seed=seeds)
def test_fuzziness_per_class_follows_its_class_and_averages_to_the_whole(counts, seed):
    torch.manual_seed(seed)
    features, labels = cases.clusters(counts, 6, 0.5, seed=seed)
    per_class = functional.class_separation_fuzziness(features, labels)
    classes = torch.randperm(len(counts))
    renamed = functional.class_separation_fuzziness(features, classes[labels])
    assert_allclose(renamed[classes], per_class, rtol=1e-9)
    whole = functional.separation_fuzziness(features, labels)
    shares = torch.tensor(counts).double() / sum(counts)
    assert_allclose(shares @ per_class, whole, rtol=1e-12)


@given(K=st.integers(2, 6), n=st.integers(1, 9), seed=seeds)
def test_nc1_of_balanced_classes_is_fuzziness_by_number_of_classes(K, n, seed):
    features, labels = cases.clusters((n,) * K, 7, 0.5, seed=seed)
    assert_allclose(
        functional.variability_collapse(features, labels),
        functional.separation_fuzziness(features, labels) / K,
        rtol=1e-12,
    )


@given(counts=counts, seed=seeds, repeats=st.integers(2, 4))
def test_repeating_every_sample_changes_nothing(counts, seed, repeats):
    features, labels = cases.clusters(counts, 5, 0.5, seed=seed)
    for function in OF_FEATURES:
        again = function(features.repeat(repeats, 1), labels.repeat(repeats))
        assert_allclose(again, function(features, labels), rtol=1e-9)


@pytest.mark.parametrize("function", OF_MEANS)
@given(K=st.integers(3, 7), d=st.integers(2, 8), seed=seeds, scale=scales, sign=signs)
def test_vectors_may_be_rotated_scaled_and_reordered(function, K, d, seed, scale, sign):
    torch.manual_seed(seed)
    vectors = torch.randn(K, d, dtype=torch.float64)
    moved = sign * scale * (vectors @ rotation(d))[torch.randperm(K)]
    value = function(vectors)
    assert value >= 0
    assert_allclose(function(moved), value, rtol=1e-9, atol=1e-13)


@given(K=st.integers(2, 7), d=st.integers(1, 8), seed=seeds, scale=scales, shift=shifts)
def test_self_duality_moves_with_both(K, d, seed, scale, shift):
    torch.manual_seed(seed)
    means, weight = torch.randn(2, K, d, dtype=torch.float64)
    R, classes = rotation(d), torch.randperm(K)
    expected = functional.self_duality(means, weight)
    assert 0 <= expected <= 4
    moved = functional.self_duality((means @ R + shift)[classes], scale * (weight @ R)[classes])
    assert_allclose(moved, expected, rtol=1e-8, atol=1e-13)


@given(counts=counts, seed=seeds, scale=scales)
def test_nearest_class_center_keeps_under_rotation_scale_and_order(counts, seed, scale):
    torch.manual_seed(seed)
    features, labels = cases.clusters(counts, 4, 1.0, seed=seed)
    weight, bias = torch.randn(len(counts), 4).double(), torch.randn(len(counts)).double()
    R, classes = rotation(4), torch.randperm(len(counts))
    order = torch.randperm(len(labels))
    expected = functional.nearest_class_center_mismatch(features, labels, weight, bias)
    moved = functional.nearest_class_center_mismatch(
        scale * (features @ R)[order],
        classes[labels][order],
        (weight @ R)[classes.argsort()],
        scale * bias[classes.argsort()],
    )
    assert moved == expected


@given(length=st.integers(3, 9), seed=seeds, scale=scales)
def test_the_law_has_the_same_rate_in_any_unit_and_its_inverse_backwards(length, seed, scale):
    torch.manual_seed(seed)
    fuzziness = torch.randn(length, dtype=torch.float64).exp()
    law = functional.separation_law(fuzziness)
    scaled = functional.separation_law(scale * fuzziness)
    backwards = functional.separation_law(fuzziness.flip(0))
    assert_allclose([scaled.rho, scaled.pearson_r], [law.rho, law.pearson_r], rtol=1e-9, atol=1e-12)
    assert_allclose(backwards.rho, 1 / law.rho, rtol=1e-9)
    assert_allclose(backwards.pearson_r, -law.pearson_r, atol=1e-9)
