import re
import warnings

import pytest
import torch
from numpy.testing import assert_allclose

from lightning_nc.functional import (
    class_distance_normalized_variance,
    class_geometry,
    class_separation_fuzziness,
    nearest_class_center_mismatch,
    separation_fuzziness,
    variability_collapse,
)
from lightning_nc.functional.class_sums import ClassMembers
from lightning_nc.functional.separating_directions import separating_directions
from tests import reference
from tests.functional import cases

WEIGHTED = [separation_fuzziness, class_separation_fuzziness, variability_collapse]
ALL = [*WEIGHTED, class_distance_normalized_variance, class_geometry]
FEATURES, LABELS = torch.randn(6, 2, generator=torch.manual_seed(0)), torch.tensor([0, 1, 2] * 2)


def test_geometry_of_four_points_on_a_line():
    features = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]])
    geometry = class_geometry(features, torch.tensor([0, 0, 1, 1]))
    assert geometry.counts.tolist() == [2, 2]
    assert geometry.means.flatten().tolist() == [2, -2]
    assert geometry.rank == 1
    assert geometry.squares.tolist() == [2, 2]
    assert_allclose(geometry.fuzziness, [0.5, 0.5], rtol=1e-14)
    assert_allclose(geometry.collapse, [0.5, 0.5], rtol=1e-14)
    assert all(value.dtype == torch.float64 for value in (geometry.means, geometry.fuzziness))


def test_geometry_keeps_squares_along_the_directions_of_either_weighting():
    features, labels = cases.clusters((30, 9, 4, 2), 6, 0.3)
    arrays = cases.numpy(features, labels)
    geometry = class_geometry(features, labels)
    assert_allclose(geometry.means, reference.class_means(*arrays), rtol=1e-12)
    D = geometry.fuzziness.sum() / 45
    assert_allclose(D, reference.separation_fuzziness(*arrays), rtol=1e-9)
    nc1 = geometry.collapse.sum() / 45 / 4
    assert_allclose(nc1, reference.variability_collapse(*arrays), rtol=1e-9)
    assert not torch.isclose(geometry.fuzziness, geometry.collapse).any()


def test_geometry_and_features_of_any_layout_are_left_alone():
    for dtype in (torch.float32, torch.float64):
        features, labels = cases.clusters((9, 5, 4), 6, 0.3, dtype=dtype)
        before, expected = features.clone(), class_geometry(features.clone(), labels)
        strided = features.mT.contiguous().mT
        for given in (features, strided, features.repeat(1, 2)[:, :6]):
            found = class_geometry(given, labels)[:6]
            for ours, theirs in zip(found, expected[:6], strict=True):
                assert_allclose(ours, theirs, rtol=1e-12)
            assert torch.equal(given, before)


def test_class_sums_of_disjoint_sets_add_up():
    def counts_and_sums(part):
        members = ClassMembers(LABELS[part], 3)
        return members.counts, members.sums_of_features(FEATURES[part])

    whole = counts_and_sums(slice(None))
    parts = [counts_and_sums(part) for part in (slice(0, 2), slice(2, 6))]
    for i in range(2):
        assert_allclose(parts[0][i] + parts[1][i], whole[i], rtol=1e-14)


def directions(counts, means):
    found = separating_directions(counts, means)
    return found.basis @ found.fuzziness, found.basis @ found.collapse, found.rank


@pytest.mark.parametrize("offset", [0.0, 30.0, 1e3])
@pytest.mark.parametrize(("K", "d"), [(4, 9), (4, 4), (4, 3), (9, 2), (2, 1)])
def test_signal_directions_whiten_the_means_and_never_hold_the_null_direction(K, d, offset):
    means = offset + 1e-3 * torch.randn(K, d, dtype=torch.float64)
    counts = torch.arange(1, K + 1).double()
    *both, rank = directions(counts, means)
    m = min(K - 1, d)
    assert rank == m
    for P, weights in zip(both, (counts, torch.ones_like(counts)), strict=True):
        w = weights / weights.sum()
        assert P.shape == (d, m)
        A = w.sqrt()[:, None] * (means - w @ means)
        assert_allclose((P.mT @ A.mT @ A @ P), torch.eye(m), atol=1e-6)


def test_directions_of_balanced_classes_are_those_of_either_weighting():
    means = torch.randn(4, 6, dtype=torch.float64)
    for counts in (torch.tensor([3.0] * 4).double(), torch.tensor([3.0, 3, 3, 2]).double()):
        found = separating_directions(counts, means)
        assert (found.collapse is found.fuzziness) == bool((counts == 3).all())


def test_signal_directions_are_those_of_the_means_moved_to_the_origin():
    # exact in float64, but the weighted mean of the moved means is off by 1e-4 of their spread
    means = 2.0**-20 * torch.tensor([[3.0, 1], [-2, 5], [4, -7]], dtype=torch.float64)
    counts = torch.tensor([3.0, 3.0, 4.0], dtype=torch.float64)
    P, Q = (directions(counts, m)[0] for m in (means, 2.0**20 + means))
    assert_allclose(Q @ Q.mT, P @ P.mT, rtol=1e-10)


@pytest.mark.parametrize(("K", "d"), [(8, 20), (20, 6), (2500, 3)])
def test_directions_are_accurate_where_some_are_ten_thousand_times_smaller(K, d):
    m = min(K - 1, d)
    random = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(K, m, generator=random).double())[0]
    V = torch.linalg.qr(torch.randn(d, m, generator=random).double())[0]
    means = U @ torch.logspace(0, -4, m).double().diag() @ V.mT
    counts = torch.randint(1, 9, (K,), generator=random).double()
    *both, rank = directions(counts, means)
    assert rank == m
    for P, weights in zip(both, (counts, torch.ones_like(counts)), strict=True):
        w = weights / weights.sum()
        _, s, Vh = torch.linalg.svd(w.sqrt()[:, None] * (means - w @ means), full_matrices=False)
        whitened = P.mT @ (Vh[:m].mT * s[:m])  # orthogonal, as P is V S^-1 up to a rotation
        assert_allclose(whitened @ whitened.mT, torch.eye(m), atol=1e-10)
        assert_allclose(torch.linalg.svdvals(P), (1 / s[:m]).flip(0), rtol=1e-9)


def test_means_in_a_plane_are_measured_in_that_plane_with_one_warning():
    means = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]]).double()
    noise = torch.tensor([[0.5, 0, 7], [-0.5, 0, -7]]).double()
    features = (means[:, None] + noise).flatten(0, 1)
    labels = torch.arange(4).repeat_interleave(2)
    with pytest.warns(UserWarning, match="span 2 of 3 directions") as caught:
        D = separation_fuzziness(features, labels)
    assert len(caught) == 1
    assert_allclose(D, 0.25, rtol=1e-12)


@pytest.mark.parametrize("function", WEIGHTED)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_coincident_means_are_nan_with_one_warning(function, offset):
    features = offset + torch.tensor([[1.0, 0.5], [-1, -0.5], [2, 4], [-2, -4]]).double()
    with pytest.warns(UserWarning, match="span 0 of 1 directions") as caught:
        value = function(features, torch.tensor([0, 0, 1, 1]))
    assert value.isnan().all()
    assert len(caught) == 1


@pytest.mark.parametrize("function", WEIGHTED)
@pytest.mark.parametrize("value", [30.1, 0.1, 1 / 3])
@pytest.mark.parametrize("counts", [(3, 2), (100, 77), (6000, 5999), (1, 2, 3, 5), (5000, 333, 17)])
def test_a_dead_layer_is_nan_with_one_warning(function, value, counts):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    features = torch.full((len(labels), 8), value, dtype=torch.float64)
    with pytest.warns(UserWarning, match="span 0 of ") as caught:
        assert function(features, labels).isnan().all()
    assert len(caught) == 1


def test_one_sample_per_class_is_collapsed():
    features = torch.randn(4, 7)
    for function in ALL[:4]:
        assert function(features, torch.tensor([2, 0, 3, 1])).eq(0).all()


def test_full_rank_is_no_reason_to_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for K, d in ((2, 1), (2, 5), (5, 2), (4, 3)):
            class_geometry(*cases.clusters((3,) * K, d, 0.1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_are_integers_of_any_width(dtype):
    assert separation_fuzziness(FEATURES, LABELS.to(dtype)) == separation_fuzziness(
        FEATURES, LABELS
    )


@pytest.mark.parametrize("function", [*ALL, lambda h, y: nearest_class_center_mismatch(h, y, h)])
@pytest.mark.parametrize(
    ("features", "labels", "error", "message"),
    [
        (FEATURES.long(), LABELS, TypeError, "torch.int64"),
        (FEATURES, LABELS.float(), TypeError, "torch.float32"),
        (FEATURES, LABELS.bool(), TypeError, "torch.bool"),
        (FEATURES[:, 0], LABELS, ValueError, "(6,) and (6,)"),
        (FEATURES[None], LABELS, ValueError, "(1, 6, 2) and (6,)"),
        (FEATURES, LABELS[:5], ValueError, "(6, 2) and (5,)"),
        (FEATURES, LABELS[:, None], ValueError, "(6, 2) and (6, 1)"),
        (FEATURES, torch.tensor([0, 1, -7, 0, 1, 2]), ValueError, "-7"),
        (FEATURES[:0], LABELS[:0], ValueError, "none"),
        (FEATURES.clone().fill_(torch.nan), LABELS, ValueError, "NaN"),
        (FEATURES.log().nan_to_num(torch.inf), LABELS, ValueError, "infinity"),
    ],
)
def test_bad_input_is_named(function, features, labels, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function(features, labels)


@pytest.mark.parametrize("function", ALL)
def test_a_missing_class_is_named(function):
    with pytest.raises(ValueError, match="No samples of class 1, 3 among 5 classes"):
        function(FEATURES, torch.tensor([0, 2, 4] * 2))


@pytest.mark.parametrize("function", ALL)
def test_one_class_alone_cannot_be_separated(function):
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        function(FEATURES, torch.zeros(6, dtype=torch.long))


@pytest.mark.parametrize(("offset", "lost"), [(1e6, 1e-8), (1e8, 1e-6)])
@pytest.mark.parametrize("function", WEIGHTED)
def test_an_offset_costs_the_digits_that_it_takes_up(function, offset, lost):
    for seed in range(20):
        features, labels = cases.clusters((9, 5, 4, 3, 2), 6, 0.3, seed=seed)
        features = (1024 * features.double()).round() / 1024  # so that they can be moved exactly
        expected = function(features, labels)
        assert_allclose(function(features + offset, labels), expected, rtol=lost)
