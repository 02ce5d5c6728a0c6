"""Minority classes, cosines of groups, and energies: by hand, by the formulas, and at the edges."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc.functional import (
    class_geometry,
    classifier_energy,
    group_cosine,
    imbalance_ratio,
    minority_classes,
)
from lightning_nc.functional.cosines import cosines, mean_over_cosines
from lightning_nc.functional.minority_collapse import feature_energy_of
from tests import reference
from tests.functional import cases

seeds = st.integers(0, 2**16)
scales = st.floats(1e-4, 1e4)
class_counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=12).filter(any)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def rotation(d):
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]


def minority_of(*counts):
    return minority_classes(torch.tensor(counts)).nonzero().flatten().tolist()


# rows at 0, 60, 90 and 180 degrees, of different lengths
ROWS = torch.tensor([[2.0, 0.0], [0.5, 0.75**0.5], [0.0, 3.0], [-5.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("members", "others", "expected"),
    [
        ([0, 1], None, 1 / 2),
        ([0, 2], None, 0),
        ([0, 3], None, -1),
        ([3, 1], None, -1 / 2),
        ([0, 1, 2], None, (1 / 2 + 0 + math.sqrt(3) / 2) / 3),
        ([0], [3], -1),
        ([0, 1], [2], math.sqrt(3) / 4),
        ([1], [0, 3], 0),
        ([0, 3], [1, 2], 0),
    ],
)
def test_group_cosines_by_hand(members, others, expected):
    for kind in (list, tuple, torch.tensor):
        second = None if others is None else kind(others)
        assert_allclose(group_cosine(ROWS, kind(members), second), expected, atol=1e-15)


def test_a_simplex_has_the_ideal_cosine_in_every_group(simplex_etf):
    for members, others in (([0, 1], None), ([1, 2, 4], None), ([0, 3], [1, 2]), (range(5), None)):
        assert_allclose(group_cosine(7 * simplex_etf, members, others), -1 / 4, rtol=1e-12)


def test_rows_that_have_merged_have_cosine_one_though_their_lengths_differ():
    rows = torch.outer(torch.tensor([1.0, 2.0, 30.0]), torch.tensor([0.3, -4.0, 1.0]))
    assert_allclose(group_cosine(rows, [0, 1, 2]), 1, rtol=1e-14)


@pytest.mark.parametrize("K", [2, 3, 10])
@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_measure_as_the_formulas_say(K, dtype):
    vectors = (3 * torch.randn(K, 6) + 1).to(dtype)
    (array,) = cases.numpy(vectors)
    for value, expected in (
        (group_cosine(vectors, range(K)), reference.group_cosine(array, range(K))),
        (group_cosine(vectors, [K - 1], [0]), reference.group_cosine(array, [K - 1], [0])),
        (classifier_energy(vectors), reference.classifier_energy(array)),
        (mean_over_cosines(vectors), reference.pair_cosines(array).mean()),
    ):
        assert value.dtype == torch.float64
        assert_allclose(value, expected, rtol=1e-9)
    if K == 10:
        groups = [0, 2, 5, 9], [1, 3, 8]
        expected = reference.group_cosine(array, *groups)
        assert_allclose(group_cosine(vectors, *groups), expected, rtol=1e-9)
        table = [[reference.group_cosine(array, [i], [j]) for j in range(K)] for i in range(K)]
        assert_allclose(cosines(vectors), table, rtol=1e-9, atol=1e-12)


def test_integer_vectors_are_measured_in_float64():
    rows = torch.tensor([[3, 4], [4, 3]])
    assert_allclose(group_cosine(rows, [0, 1]), 24 / 25, rtol=1e-15)
    assert_allclose(classifier_energy(rows), 25, rtol=1e-15)


@pytest.mark.parametrize("case", cases.PLAIN)
def test_energies_of_features_are_as_the_formulas_say(case):
    features, labels = cases.PLAIN[case]()
    geometry, arrays = class_geometry(features, labels), cases.numpy(features, labels)
    centre = reference.class_means(*arrays).mean(0)
    assert_allclose(feature_energy_of(geometry), reference.feature_energy(*arrays), rtol=1e-9)
    expected = reference.feature_energy(*arrays, centre)
    assert_allclose(feature_energy_of(geometry, centred=True), expected, rtol=1e-9)


def test_energies_by_hand_weigh_every_class_the_same():
    # class 0: (9 + 1 + 1 + 1) / 4 = 3; class 1: 16; centred about (1.5 + 4) / 2 = 2.75
    features = torch.tensor([[3.0], [1.0], [1.0], [1.0], [4.0]])
    geometry = class_geometry(features, torch.tensor([0, 0, 0, 0, 1]))
    assert feature_energy_of(geometry) == (3 + 16) / 2
    expected = ((0.25**2 + 3 * 1.75**2) / 4 + 1.25**2) / 2
    assert_allclose(feature_energy_of(geometry, centred=True), expected, rtol=1e-14)
    assert classifier_energy(torch.zeros(3, 2)) == 0


@given(seed=seeds, K=st.integers(3, 8), d=st.integers(1, 6))
def test_cosines_keep_under_rotation_scaling_of_each_vector_and_order_of_classes(seed, K, d):
    torch.manual_seed(seed)
    vectors = torch.randn(K, d, dtype=torch.float64)
    lengths = torch.randn(K, 1, dtype=torch.float64).mul(3).exp()
    order = torch.randperm(K)
    renamed = order.argsort()  # class k is at place renamed[k]
    moved = (lengths * (vectors @ rotation(d)))[order]
    members, others = torch.arange(2), torch.arange(2, K)
    for groups in ((members,), (members, others), (torch.arange(K),)):
        value = group_cosine(vectors, *groups)
        assert -1 - 1e-12 <= value <= 1 + 1e-12
        again = group_cosine(moved, *(renamed[group] for group in groups))
        assert_allclose(again, value, rtol=1e-9, atol=1e-12)


@given(seed=seeds, counts=st.lists(st.integers(1, 9), min_size=2, max_size=5), scale=scales)
def test_energies_keep_under_rotation_and_order_and_scale_as_squares(seed, counts, scale):
    torch.manual_seed(seed)
    features, labels = cases.clusters(counts, 4, 0.5, offset=3.0, seed=seed)
    order, classes = torch.randperm(len(labels)), torch.randperm(len(counts))
    moved = scale * (features @ rotation(4))[order]
    first, second = class_geometry(features, labels), class_geometry(moved, classes[labels][order])
    shifted = class_geometry(features + 5, labels)
    for centred in (False, True):
        value = feature_energy_of(first, centred)
        assert_allclose(feature_energy_of(second, centred), scale**2 * value, rtol=1e-9)
    assert_allclose(feature_energy_of(shifted, True), feature_energy_of(first, True), rtol=1e-9)
    means = first.means
    energy = classifier_energy(means)
    assert_allclose(classifier_energy(-scale * means @ rotation(4)), scale**2 * energy, rtol=1e-9)


def test_without_a_pair_there_is_no_cosine():
    assert group_cosine(ROWS, [2]).isnan()
    for nobody in ([], (), torch.tensor([], dtype=torch.long)):
        assert group_cosine(ROWS, nobody).isnan()
        assert group_cosine(ROWS, [0, 1], nobody).isnan()
        assert group_cosine(ROWS, nobody, [0]).isnan()


def test_a_zero_vector_has_no_cosine_and_spoils_no_pairs_but_its_own():
    rows = ROWS.clone()
    rows[3] = 0
    assert group_cosine(rows, [0, 1, 3]).isnan()
    assert group_cosine(rows, [0], [3]).isnan()
    assert_allclose(group_cosine(rows, [0, 1]), 1 / 2, rtol=1e-15)
    assert cosines(rows).isnan().sum() == 7


@pytest.mark.parametrize("groups", [([0, 4],), ([0], [7])])
def test_an_index_out_of_range_is_an_error(groups):
    with pytest.raises(IndexError):
        group_cosine(ROWS, *groups)


BY_HAND = {
    "one clear gap": [
        ((100, 10, 90, 12), [1, 3]),  # the step of 7.5 from 12 to 90 is the largest
        ((40, 40, 10, 10), [2, 3]),
        ((1000, 100, 99), [1, 2]),
        ((5000, 2500, 900, 300, 20, 11), [4, 5]),  # 15 is more than 3 squared
        ((48, 24, 6, 5, 4), [2, 3, 4]),  # 4 is 2 squared
        ((100, 10, 9, 8), [1, 2, 3]),  # however many are below it
        ((2, 1, 50, 60, 70, 80, 90, 95, 98), [0, 1]),
    ],
    "none that is clear: the rarest third, but two or more": [
        ((200, 150, 100, 70, 40, 20), [4, 5]),  # 2 is less than 1.75 squared
        ((100, 10, 1), [1, 2]),
        ((27, 9, 3, 1), [2, 3]),
        ((10, 20, 40, 80, 160, 320, 640, 1280, 2560), [0, 1, 2]),
        ((10, 20, 40, 80, 160, 320, 640, 1280), [0, 1]),  # a third of 8, rounded down
        ((100, 30, 7, 7, 2), [2, 3, 4]),  # what is tied with the second
        ((200, 180, 129, 128, 120), [3, 4]),  # 1.4 is more than 1.1 squared, but too little
    ],
    "a gap that leaves a single class: the same": [
        ((400, 300, 200, 10), [2, 3]),
        ((500, 400, 300, 200, 200, 10), [3, 4, 5]),
    ],
    "never what is within 1.5 of the largest": [
        ((1000, 999, 1), [2]),
        ((20, 20, 20, 4), [3]),
        ((20, 21, 20, 4), [3]),
        ((150, 100, 101, 9), [1, 3]),
        ((2**62, 2**62, 1), [2]),
    ],
    "balanced": [
        ((30, 30, 30), []),
        ((149, 120, 100), []),
        ((150, 120, 100), [2]),
        ((7, 7), []),
        ((9,), []),
        ((0.5, 0.5), []),
    ],
    "two classes": [((5, 500), [0]), ((15, 10), [1]), ((14, 10), []), ((0, 1), [0])],
    "classes without samples": [
        ((0, 0, 5, 5), [0, 1]),
        ((0, 0, 9, 8, 50), [0, 1]),  # infinitely many times more
        ((0, 5, 50), [0, 1]),  # a single one
        ((0, 3, 4, 1000), [0, 1]),
        ((0, 6, 6, 6), [0]),
        ((0, 0, 0, 7), [0, 1, 2]),
    ],
}


@pytest.mark.parametrize(
    ("counts", "expected"), [case for cases_of_one in BY_HAND.values() for case in cases_of_one]
)
def test_minority_classes_by_hand(counts, expected):
    assert minority_of(*counts) == expected


@given(counts=class_counts, seed=seeds)
def test_minority_classes_are_those_of_the_formula_in_any_order(counts, seed):
    expected = reference.minority_classes(counts)
    minority = minority_classes(torch.tensor(counts))
    assert minority.dtype == torch.bool
    assert minority.tolist() == expected
    order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    assert minority_classes(torch.tensor(counts)[order]).tolist() == minority[order].tolist()
    common = [rare for n, rare in zip(counts, expected, strict=True) if 3 * n > 2 * max(counts)]
    assert not any(common)
    if any(expected):
        ratio = imbalance_ratio(torch.tensor(counts), minority)
        assert ratio.dtype == torch.float64
        largest_rare = max(n for n, rare in zip(counts, expected, strict=True) if rare)
        if largest_rare:
            assert ratio > 1
            assert_allclose(ratio, reference.imbalance_ratio(counts, expected), rtol=1e-12)
        else:
            assert ratio == math.inf


@pytest.mark.parametrize("unit", [1, 2, 3, 5, 6, 7, 9, 11, 13, 100])
def test_equal_gaps_are_equal_and_a_gap_twice_as_large_is_clear_in_every_unit(unit):
    assert minority_of(100 * unit, 10 * unit, unit) == [1, 2]
    assert minority_of(27 * unit, 9 * unit, unit, 3 * unit) == [2, 3]
    assert minority_of(*(unit * n for n in (4, 5, 6, 54, 162))) == [0, 1, 2]


@given(counts=class_counts, few=st.lists(st.sampled_from([0, 1, 2, 3, 9]), min_size=2).filter(any))
def test_classes_of_equal_counts_are_treated_alike_and_rarer_ones_are_in_the_minority_too(
    counts, few
):
    for each in (counts, few):
        minority = minority_classes(torch.tensor(each)).tolist()
        largest = max((n for n, rare in zip(each, minority, strict=True) if rare), default=-1)
        assert minority == [n <= largest for n in each]
        assert largest < max(each)
        rare = sum(3 * n <= 2 * max(each) for n in each)
        assert sum(minority) >= min(rare, 2)  # two or more, if as many are rare


@pytest.mark.parametrize("K", [4, 10, 1000])
def test_what_is_drawn_less_often_by_chance_is_no_minority(K):
    weights, random = torch.ones(K), torch.Generator().manual_seed(K)
    weights[:2] = 0.2
    for _ in range(100):
        drawn = torch.randint(0, K, (120 * K,), generator=random).bincount(minlength=K)
        assert not minority_classes(drawn, at_random=True).any()
        rare = torch.multinomial(weights, 120 * K, True, generator=random).bincount(minlength=K)
        assert minority_classes(rare, at_random=True)[:2].all()
        assert not minority_classes(rare, at_random=True)[2:].any()
    assert minority_classes(torch.tensor([4, 2, 2])).tolist() == [False, True, True]
    assert not minority_classes(torch.tensor([4, 2, 2]), at_random=True).any()


@given(counts=class_counts, unit=st.integers(1, 50))
def test_minority_classes_do_not_depend_on_the_unit_of_counts(counts, unit):
    n = torch.tensor(counts)
    assert torch.equal(minority_classes(n), minority_classes(unit * n))


@pytest.mark.parametrize("counts", [(), (0, 0, 0), (3, -1, 5)])
def test_counts_that_are_none_are_refused_by_value(counts):
    message = rf"per class must .* not all zero, got \[{', '.join(map(str, counts))}\]"
    with pytest.raises(ValueError, match=message):
        minority_classes(torch.tensor(counts, dtype=torch.long))


@pytest.mark.parametrize(
    ("counts", "minority", "expected"),
    [
        ((30, 10, 2), (0, 0, 1), 10),
        ((40, 40, 10, 10), (0, 0, 1, 1), 4),
        ((1, 2, 100), (0, 1, 0), 50.5 / 2),  # classes that are named need not be the smallest
        ((10, 20), (0, 1), 0.5),
        ((7, 7, 7), (0, 1, 1), 1),
        ((5, 0, 0), (0, 1, 1), math.inf),
        ((5, 2, 0), (0, 1, 1), 5),
    ],
)
def test_imbalance_ratios_by_hand(counts, minority, expected):
    ratio = imbalance_ratio(torch.tensor(counts), torch.tensor(minority, dtype=torch.bool))
    assert_allclose(ratio, expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("counts", "minority"), [((5, 5), (0, 0)), ((5, 2), (1, 1)), ((0, 0), (0, 1))]
)
def test_an_imbalance_ratio_needs_both_groups_and_samples(counts, minority):
    assert imbalance_ratio(torch.tensor(counts), torch.tensor(minority, dtype=torch.bool)).isnan()


@pytest.mark.parametrize("listed", [[2], [0, 0, 1], [False, True]])
def test_an_imbalance_ratio_needs_a_truth_value_for_each_class(listed):
    with pytest.raises(ValueError, match="True or False for each of 3 classes"):
        imbalance_ratio(torch.tensor([30, 10, 2]), torch.tensor(listed))
