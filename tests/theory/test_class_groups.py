import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc.theory.class_groups import group_classes


def test_up_to_ten_counts_are_kept_exactly():
    groups = group_classes([100 + k for k in range(10)])
    assert groups.counts.tolist() == [109 - k for k in range(10)]
    assert not groups.merged


def test_more_are_merged_where_they_differ_by_a_tenth_at_most():
    groups = group_classes([1000 * 2**k + j for k in range(3) for j in range(10)])
    assert groups.sizes.tolist() == [10, 10, 10]
    assert groups.counts.tolist() == [4004.5, 2004.5, 1004.5]
    assert groups.merged


def test_then_the_closest_in_ratio_until_ten_are_left():
    # 1.5 and 1.4 are within a tenth; their mean 1.45 is closer to 2 than to 1
    groups = group_classes([1, 1.4, 1.5, *(2.0**k for k in range(1, 10))])
    assert_allclose(groups.counts, [*(2.0**k for k in range(9, 1, -1)), 4.9 / 3, 1])
    assert groups.sizes.tolist() == [1] * 8 + [3, 1]


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=40))
def test_groups_keep_classes_samples_and_order(counts):
    groups = group_classes(counts)
    assert len(groups.sizes) <= 10
    assert groups.sizes.sum() == len(counts)
    assert_allclose(groups.sizes @ groups.counts, sum(counts))
    assert (np.diff(groups.counts) <= 1e-9 * groups.counts[:-1]).all()
    assert groups.merged == (len(set(counts)) > 10)
    larger_first = np.argsort(-np.array(counts), kind="stable")
    assert (np.diff(groups.group_of[larger_first]) >= 0).all()


@pytest.mark.parametrize("counts", [[3, 3, 3], [1, 2, 3]])
def test_equal_counts_share_a_group(counts):
    assert len(group_classes(counts).sizes) == len(set(counts))
