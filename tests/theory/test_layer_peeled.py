import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc.theory import layer_peeled_model, simplex_etf
from tests.theory import unreduced

ONE_TO_THREE_GROUPS = [
    ([7] * 4, 1, 5),
    ([1, 1], 2, 3),
    ([3, 1], 1, 4),
    ([10] * 5 + [1] * 5, 1, 5),
    ([13] * 5 + [1] * 5, 1, 5),  # the minority has merged
    ([1, 20, 1, 20, 1, 1], 3, 2),
    ([100, 10, 10, 1, 1, 1], 1, 8),
    ([9, 3, 3, 3, 1], 4, 1),
    ([50, 50, 5, 5, 5, 5, 1, 1, 1, 1, 1, 1], 1, 12),
]


@pytest.mark.parametrize(("counts", "energy_w", "energy_h"), ONE_TO_THREE_GROUPS)
def test_the_reduced_program_is_the_program_of_all_classes(counts, energy_w, energy_h):
    objective, X, lambda_w, lambda_h = unreduced.solve(counts, energy_w, energy_h)
    solution = layer_peeled_model(counts, energy_w, energy_h)
    assert_allclose(solution.objective, objective, rtol=1e-5)
    features, rows = unreduced.cosines(X, solution.group_of.numpy())
    assert_allclose(solution.cosine_h, features, atol=1e-5)
    assert_allclose(solution.cosine_w, rows, atol=1e-5)
    assert_allclose(solution.gram(), X, atol=1e-4 * np.abs(X).max())
    assert_allclose([solution.lambda_w, solution.lambda_h], [lambda_w, lambda_h], rtol=1e-4)
    assert solution.duality_gap <= 1e-10 * solution.objective


@pytest.mark.parametrize("K", [2, 3, 10, 100])
@pytest.mark.parametrize(("energy_w", "energy_h"), [(1, 5), (0.1, 0.02), (25, 20), (40, 50)])
def test_balanced_classes_collapse_with_the_constants_of_the_theorem(K, energy_w, energy_h):
    solution = layer_peeled_model([100] * K, energy_w, energy_h)
    for cosine in (solution.cosine_w, solution.cosine_h):
        assert_allclose(cosine, [[-1 / (K - 1)]], atol=1e-12)
    assert_allclose(solution.norm_w, [math.sqrt(energy_w)], rtol=1e-12)
    assert_allclose(solution.norm_h, [math.sqrt(energy_h)], rtol=1e-12)
    W, H = solution.recover(2 * K)
    assert_allclose(H, math.sqrt(energy_h / energy_w) * W, atol=1e-12)
    m = simplex_etf(K, 2 * K)
    assert_allclose(H @ H.mT, energy_h * m @ m.mT, atol=1e-11 * energy_h)
    margin = math.sqrt(energy_w * energy_h) * K / (K - 1)
    assert_allclose(solution.objective, math.log1p((K - 1) * math.exp(-margin)), rtol=1e-9)


def test_nearly_balanced_classes_of_a_trained_net_nearly_collapse():
    counts = [6742, 5923, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # MNIST
    for energy_h in (5, 500, 2000):
        solution = layer_peeled_model(counts, 1, energy_h)
        assert not solution.counts_merged
        assert solution.duality_gap <= 1e-8 * solution.objective
        assert solution.mean_cosine_w(range(10)) == pytest.approx(-1 / 9, abs=1e-3)


@pytest.mark.parametrize(
    ("R", "cosine"), [(1, -0.111), (10, 0.517), (11, 0.693), (12, 0.941), (13, 1.0)]
)
def test_minority_rows_approach_each_other(R, cosine):
    solution = layer_peeled_model([R] * 5 + [1] * 5, 1, 5)
    assert solution.mean_cosine_w(range(5, 10)) == pytest.approx(cosine, abs=1e-3)


def test_the_minority_cosine_rises_and_the_majority_cosine_stays_negative():
    minority, majority = [], []
    for R in np.logspace(0, 2, 15):
        solution = layer_peeled_model([R] * 5 + [1] * 5, 1, 5)
        minority.append(solution.mean_cosine_w(range(5, 10)))
        majority.append(solution.mean_cosine_w(range(5)))
    assert (np.diff(minority) >= -1e-12).all()
    assert minority[0] == pytest.approx(-1 / 9)
    assert minority[-1] == pytest.approx(1)
    assert max(majority) < 0


def test_vanished_rows_have_no_cosine_but_a_norm():
    solution = layer_peeled_model([8] * 7 + [1] * 3, 1, 5)
    assert solution.norm_w[1] < 1e-6
    assert solution.norm_h[1] < 1e-6
    assert solution.collapsed.tolist() == [False, True]
    for cosine in (solution.cosine_w, solution.cosine_h):
        assert cosine.isnan().tolist() == [[False, True], [True, True]]
        assert_allclose(cosine[0, 0], -1 / 6, atol=1e-9)  # the majority collapses by itself
    assert math.isnan(solution.mean_cosine_w([7, 8, 9]))
    assert_allclose(solution.norm_w[0], math.sqrt(10 / 7), rtol=1e-9)


counts_of_groups = st.lists(
    st.tuples(st.floats(1, 300), st.integers(1, 4)), min_size=1, max_size=3
).filter(lambda groups: sum(size for _, size in groups) >= 2)


@settings(max_examples=25, deadline=None)
@given(counts_of_groups, st.floats(0.01, 2000), st.floats(0.01, 100), st.randoms())
def test_what_does_not_matter_changes_nothing(groups, product, c, random):
    counts = [count for count, size in groups for _ in range(size)]
    energy = math.sqrt(product)
    solution = layer_peeled_model(counts, energy, energy)
    order = list(range(len(counts)))
    random.shuffle(order)
    other = layer_peeled_model([64 * counts[k] for k in order], c * energy, energy / c)
    assert other.group_of.tolist() == solution.group_of[order].tolist()
    assert_allclose(other.objective, solution.objective, rtol=1e-7)
    assert_allclose(other.norm_w / math.sqrt(c), solution.norm_w, atol=1e-4 * math.sqrt(energy))
    assert_allclose(other.norm_h * math.sqrt(c), solution.norm_h, atol=1e-4 * math.sqrt(energy))
    for found in (solution, other):
        assert 0 <= found.duality_gap <= 1e-8 * found.objective
    if min(solution.norm_w) > 1e-2 * math.sqrt(energy):
        assert_allclose(other.cosine_w, solution.cosine_w, atol=1e-4)
        assert_allclose(other.cosine_h, solution.cosine_h, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(counts_of_groups, st.floats(0.01, 2000), st.integers(0, 5))
def test_a_recovered_classifier_attains_the_objective(groups, energy_h, more):
    counts = [count for count, size in groups for _ in range(size)]
    K, N = len(counts), sum(counts)
    solution = layer_peeled_model(counts, 1, energy_h)
    W, H = solution.recover(K - 1 + more)
    assert W.shape == H.shape == (K, K - 1 + more)
    losses = torch.nn.functional.cross_entropy(H @ W.mT, torch.arange(K), reduction="none")
    loss = float(torch.tensor(counts, dtype=torch.float64) @ losses / N)
    assert loss == pytest.approx(solution.objective, rel=1e-7, abs=1e-14)
    assert_allclose(W.square().sum() / K, 1, rtol=1e-9)
    assert_allclose(H.square().sum() / K, energy_h, rtol=1e-9)
    both = torch.cat([H, W])
    assert_allclose(both @ both.mT, solution.gram(), atol=1e-10 * max(1, energy_h))
    assert_allclose(W.norm(dim=1), solution.norm_w[solution.group_of], atol=1e-7)


def test_fewer_dimensions_than_the_simplex_needs_are_refused():
    with pytest.raises(ValueError, match="p >= K - 1 = 3"):
        layer_peeled_model([1, 1, 2, 2], 1, 1).recover(2)


def test_a_wrong_solution_does_not_recover():
    solution = layer_peeled_model([5, 5, 1, 1], 1, 2)
    solution.within.mul_(0.9)
    with pytest.raises(RuntimeError, match="the solution has"):
        solution.recover(8)


def test_a_thousand_classes_in_two_groups():
    solution = layer_peeled_model([100] * 500 + [1] * 500, 1, 5)
    assert solution.group_sizes.tolist() == [500, 500]
    assert solution.collapsed.tolist() == [False, True]
    assert solution.gram().shape == (2000, 2000)


def test_a_long_tail_is_merged_and_the_solution_says_so():
    counts = [5000 * 0.01 ** (k / 99) for k in range(100)]
    solution = layer_peeled_model(counts, 1, 5)
    assert solution.counts_merged
    assert len(solution.group_sizes) == 10
    assert_allclose(solution.group_counts @ solution.group_sizes.double(), sum(counts))
    norms = solution.norm_w
    assert (norms[1:] <= norms[:-1] + 1e-9).all()


def test_energies_reached_by_trained_nets_are_certified():
    for energy_h in (500, 2000, 5000):
        for R in (2, 100, 10_000):
            solution = layer_peeled_model([R] * 5 + [1] * 5, 1, energy_h)
            assert solution.duality_gap <= 1e-8 * solution.objective
            assert -1 / 4 < solution.mean_cosine_w(range(5, 10)) < -0.05


def test_tensors_and_floats_are_counts_too():
    solution = layer_peeled_model(torch.tensor([10, 1, 1]), 1, 5)
    assert solution.objective == layer_peeled_model([10.0, 1.0, 1.0], 1, 5).objective
    assert solution.cosine_w.isnan().tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("inside", [torch.no_grad, torch.inference_mode])
def test_it_runs_where_no_gradients_are_kept(inside):
    with inside():
        assert layer_peeled_model([3, 1, 1], 1, 2).recover(6)[0].shape == (3, 6)


@pytest.mark.parametrize(
    ("counts", "energies", "message"),
    [
        ([5], (1, 1), "two classes or more, got 1"),
        ([], (1, 1), "two classes or more, got 0"),
        ([5, 0, 3], (1, 1), "class 1 has 0"),
        ([5, -2], (1, 1), "class 1 has -2"),
        ([math.nan, 2], (1, 1), "class 0 has nan"),
        ([math.inf, 2], (1, 1), "class 0 has inf"),
        ([1, 2], (0, 1), "energy_w must be positive and finite, got 0"),
        ([1, 2], (1, -3), "energy_h must be positive and finite, got -3"),
        ([1, 2], (math.nan, 1), "energy_w must be positive and finite, got nan"),
        ([1, 2], (1, math.inf), "energy_h must be positive and finite, got inf"),
    ],
)
def test_what_cannot_be_solved_is_refused(counts, energies, message):
    with pytest.raises(ValueError, match=message):
        layer_peeled_model(counts, *energies)


def test_without_cvxpy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r'pip install "lightning-neural-collapse\[theory\]"'):
        layer_peeled_model([2, 1], 1, 1)
