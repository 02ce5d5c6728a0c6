import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import lightning_nc.functional.class_pairs as class_pairs
import lightning_nc.functional.class_sums as class_sums
from lightning_nc.functional import (
    class_distance_normalized_variance,
    class_moments,
    classifier_energy,
    equiangularity,
    equinorm,
    hyperspherical_uniformity,
    maximal_angle,
    relative_similarity,
    self_duality,
    separation_fuzziness,
    simplex_etf_error,
    simplex_symmetry,
)
from lightning_nc.functional.class_distance import class_distance_normalized_variance_of
from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.class_sums import ClassMembers
from lightning_nc.functional.cosines import centred, cosine_histogram
from lightning_nc.functional.pair_quantities import pair_quantities
from tests import reference
from tests.functional import cases

UNSIGNED = [torch.uint8, torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("K", [3, 32, 33, 500])
@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_sums_by_class_are_those_of_a_loop_on_either_route(K, shape, dtype):
    labels = torch.randint(0, K, (700,))
    values = torch.randn(700, *shape).to(dtype)
    expected = [values[labels == k].double().sum(0) for k in range(K)]
    found = ClassMembers(labels, K).sums_of(values)
    assert found.dtype == torch.float64
    assert_allclose(found, torch.stack(expected), rtol=1e-12, atol=1e-12)
    assert torch.equal(found, ClassMembers(labels, K).sums_of(values))  # the same bits


def test_no_matrix_of_classes_and_samples_is_formed_for_many_classes(monkeypatch):
    monkeypatch.setattr(class_sums, "_FEW_CLASSES", 2)
    monkeypatch.setattr(torch, "arange", None)  # of which the matrix is made
    labels = torch.tensor([0, 2, 2, 1])
    assert ClassMembers(labels, 3).sums_of(torch.ones(4)).tolist() == [1, 1, 2]


def test_pairs_in_many_squares_give_what_one_square_gives(monkeypatch):
    features, labels = cases.clusters((4, 3, 5, 6, 2, 4, 3), 6, 0.5)
    vectors = torch.randn(7, 6, dtype=torch.float64)

    def values():
        yield class_distance_normalized_variance(features, labels)
        functions = equiangularity, maximal_angle, simplex_etf_error, hyperspherical_uniformity
        for function in functions:
            yield function(vectors)
        yield self_duality(vectors, vectors.roll(1, 0))
        yield from simplex_symmetry(vectors, vectors.roll(1, 0))

    whole = list(values())
    monkeypatch.setattr(class_pairs, "_SIDE", 2)  # two rows and two columns at a time
    monkeypatch.setattr(class_pairs, "_DIFFERENCES", 14)
    assert len(class_pairs.squares_of_pairs(7)) == 10
    assert_allclose(list(values()), whole, rtol=1e-12)


ALL_PAIRS = {
    "anywhere": lambda: torch.randn(7, 5).double(),
    "more than dimensions": lambda: torch.randn(17, 3).double(),
    "two alike": lambda: torch.tensor([[1, 0, 0], [1, 1e-7, 0], [0, 1, 0], [0, 0, 2]]).double(),
    "of many sizes": lambda: torch.logspace(-6, 0, 7).double()[:, None] * torch.randn(7, 5),
    "one is zero": lambda: torch.eye(5, 4).double(),
}


@pytest.mark.parametrize("of", ALL_PAIRS)
def test_all_pairs_are_compared_in_one_go(of, monkeypatch):
    monkeypatch.setattr(class_pairs, "_SIDE", 3)
    M = centred(ALL_PAIRS[of]())
    n = torch.ones(len(M)).double()
    geometry = ClassGeometry(n, M, torch.tensor(2), n, n, squares=torch.arange(len(M)).double())
    made = []
    monkeypatch.setattr(class_pairs, "PairSquare", counted(class_pairs.PairSquare, made))
    found = pair_quantities(M, geometry, bins=20)
    parts = -(-len(M) // 3)
    assert len(made) == parts * (parts + 1) / 2  # products are formed once
    apart = equiangularity(M), maximal_angle(M), hyperspherical_uniformity(M)
    apart += class_distance_normalized_variance_of(geometry), cosine_histogram(M, 20)
    for together, alone in zip(found, apart, strict=True):
        assert_allclose(together, alone, rtol=1e-13)
    v = geometry.squares.numpy()
    i, j = np.triu_indices(len(M), 1)
    distances = np.square(M.numpy()[i] - M.numpy()[j]).sum(1)
    assert_allclose(found.cdnv, np.mean((v[i] + v[j]) / 2 / distances), rtol=1e-9)


def counted(kind, made):
    def of(*arguments):
        made.append(kind(*arguments))
        return made[-1]

    return of


def test_the_histogram_of_cosines_is_that_of_all_pairs(monkeypatch):
    vectors = torch.randn(7, 3, dtype=torch.float64)
    vectors[1], vectors[2] = 2 * vectors[0], -vectors[0]  # cosines 1 and -1, up to rounding
    vectors = torch.cat([vectors, torch.zeros(1, 3)])  # has no direction
    monkeypatch.setattr(class_pairs, "_SIDE", 2)  # two classes at a time
    pairs = np.clip(reference.pair_cosines(vectors[:7].numpy()), -1, 1)
    expected = np.histogram(pairs, bins=20, range=(-1, 1))[0]
    assert_allclose(cosine_histogram(vectors, 20), expected)


@pytest.mark.parametrize("dtype", UNSIGNED)
def test_labels_may_be_unsigned(dtype):
    features, labels = cases.clusters((4, 3, 5), 6, 0.5)
    expected = separation_fuzziness(features, labels)
    assert separation_fuzziness(features, labels.to(dtype)) == expected
    model = torch.nn.Linear(6, 3).double()
    expected = relative_similarity(model, features, labels)
    assert torch.equal(relative_similarity(model, features, labels.to(dtype)), expected)


@pytest.mark.parametrize("label", [3_000_000_000, 2**62])
def test_nothing_is_allocated_for_a_label_that_is_no_class_index(label):
    with pytest.raises(ValueError, match=f"Label {label} is out of range for 3 samples"):
        separation_fuzziness(torch.randn(3, 2), torch.tensor([0, 1, label]))
    with pytest.raises(ValueError, match=f"Label {label} is out of range for 2 classes"):
        class_moments(torch.randn(3, 2), torch.tensor([0, 1, label]), 2)


@pytest.mark.parametrize(
    "function",
    [
        classifier_energy,
        cosine_histogram,
        equiangularity,
        equinorm,
        hyperspherical_uniformity,
        maximal_angle,
        simplex_etf_error,
    ],
)
@pytest.mark.parametrize("shape", [(3, 0), (2, 0), (3,), (2, 3, 4)])
def test_what_is_no_row_per_class_is_refused(function, shape):
    bins = [20] if function is cosine_histogram else []
    with pytest.raises(ValueError, match=r"\(K, d\) with d of 1 .* " + re.escape(str(shape))):
        function(torch.zeros(shape), *bins)
