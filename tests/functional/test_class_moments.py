from functools import reduce
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc.functional import class_geometry, class_moments, pool_moments
from lightning_nc.functional.class_moments import geometry_of_moments
from tests import reference
from tests.functional import cases


def scatter(moments):
    return moments.factor.mT @ moments.factor


def assert_same(a, b, rtol=1e-12):
    for ours, theirs in zip([*a[:3], scatter(a)], [*b[:3], scatter(b)], strict=True):
        assert_allclose(ours, theirs, rtol=rtol, atol=1e-12)


def test_moments_of_three_samples():
    features = torch.tensor([[1.0, 2.0], [3.0, 0.0], [5.0, 5.0]])
    moments = class_moments(features, torch.tensor([0, 0, 2]), 3)
    assert moments.counts.tolist() == [2, 0, 1]
    assert moments.means.tolist() == [[2, 1], [0, 0], [5, 5]]
    assert moments.squares.tolist() == [4, 0, 0]
    assert scatter(moments).tolist() == [[2, -2], [-2, 2]]


def test_scatter_is_the_within_class_covariance_times_samples():
    features, labels = cases.clusters((9, 5, 3), 4, 0.5, offset=30.0)
    covariance = reference.within_covariance(*cases.numpy(features, labels))
    assert_allclose(scatter(class_moments(features, labels, 3)), 17 * covariance, rtol=1e-9)


def test_features_are_left_as_they_were():
    features, labels = cases.clusters((9, 5, 3), 4, 0.5)
    before = features.clone()
    class_moments(features, labels, 3)
    assert torch.equal(features, before)


@given(cuts=st.lists(st.integers(0, 40), max_size=5), seed=st.integers(0, 99))
def test_pooling_any_split_gives_the_whole(cuts, seed):
    features, labels = cases.clusters((20, 15, 5), 4, 0.5, offset=3.0, seed=seed)
    edges = [0, *sorted(cuts), 40]
    parts = [class_moments(features[a:b], labels[a:b], 3) for a, b in pairwise(edges)]
    assert_same(reduce(pool_moments, parts), class_moments(features, labels, 3))


def test_pooling_goes_in_any_order():
    features, labels = cases.clusters((20, 15, 5), 4, 0.5)
    a, b, c = (
        class_moments(h, y, 3)
        for h, y in zip(features.split([3, 30, 7]), labels.split([3, 30, 7]), strict=True)
    )
    whole = pool_moments(pool_moments(a, b), c)
    assert_same(pool_moments(a, pool_moments(c, b)), whole)
    assert_same(pool_moments(pool_moments(c, a), b), whole)


def test_pooling_with_nothing_changes_nothing():
    features, labels = cases.clusters((20, 15, 5), 4, 0.5)
    moments = class_moments(features, labels, 3)
    nothing = class_moments(features[:0], labels[:0], 3)
    assert_same(pool_moments(moments, nothing), moments, rtol=0)
    assert_same(pool_moments(nothing, moments), moments, rtol=0)


def test_a_factor_has_no_more_than_three_rows_per_dimension():
    features, labels = cases.clusters((20, 15, 5), 4, 0.5)
    single = zip(features.split(1), labels.split(1), strict=True)
    parts = [class_moments(h, y, 3) for h, y in single]
    for pooled in accumulate(parts, pool_moments):
        assert len(pooled.factor) <= 3 * 4
    assert_same(pooled, class_moments(features, labels, 3))


@pytest.mark.parametrize("case", cases.PLAIN)
def test_geometry_of_moments_has_the_totals_of_two_passes(case):
    features, labels = cases.PLAIN[case]()
    direct = class_geometry(features.clone(), labels)
    parts = [
        class_moments(h, y, len(direct.counts))
        for h, y in zip(features.split(7), labels.split(7), strict=True)
    ]
    pooled = geometry_of_moments(reduce(pool_moments, parts))
    assert_allclose(pooled.means, direct.means, rtol=1e-10, atol=1e-12)
    assert pooled.counts.tolist() == direct.counts.tolist()
    assert pooled.rank == direct.rank
    assert_allclose(pooled.fuzziness.sum(), direct.fuzziness.sum(), rtol=1e-9)
    assert_allclose(pooled.collapse.sum(), direct.collapse.sum(), rtol=1e-9)
    assert_allclose(pooled.squares, direct.squares, rtol=1e-9)
