import math

import mpmath
import pytest
import torch

from lightning_nc.theory import critical_imbalance, layer_peeled_model

R_0 = {(3, 5): 245.5, (5, 5): 12.19, (7, 5): 4.00, (3, 10): 6350.8, (5, 10): 81.1, (7, 10): 13.67}


def merging_imbalance(A, B, s, start):
    """R_0 to 20 digits, where the conditions of optimality hold with sigma_B = 0 and no slack.

    The logits Z of A majority and B minority classes have the eigenvalue ``sigma`` within a group,
    and the block ``Y = u v^T``, since rows are centred; ``(A-1) sigma_A + |u| = K``. At R_0 the
    gradient along sigma_B, per direction, reaches the multiplier of this constraint.
    """
    K = A + B
    v_A, v_B = mpmath.sqrt(mpmath.mpf(B) / K), -mpmath.sqrt(mpmath.mpf(A) / K)

    def loss(R, sigma_A, sigma_B, u_A, u_B):
        total = 0
        for m, n, other, sigma, u, v, w in (
            (A, R, B, sigma_A, u_A, v_A, v_B),
            (B, 1, A, sigma_B, u_B, v_B, v_A),
        ):
            same = (u * v - sigma) / m
            own, far = same + sigma, u * w / mpmath.sqrt(A * B)
            wrong = (m - 1) * mpmath.exp(s * (same - own)) + other * mpmath.exp(s * (far - own))
            total += m * n * mpmath.log1p(wrong) / (A * R + B)
        return total

    def conditions(sigma_A, u_A, u_B, R):
        at, length = (R, sigma_A, 0, u_A, u_B), mpmath.hypot(u_A, u_B)
        g = [mpmath.diff(loss, at, tuple(int(i == j) for j in range(5))) for i in range(1, 5)]
        multiplier = -(g[2] * u_A + g[3] * u_B) / length
        across = g[2] * u_B - g[3] * u_A
        within_A, within_B = g[0] / (A - 1) + multiplier, g[1] / (B - 1) + multiplier
        return within_A, across, (A - 1) * sigma_A + length - K, within_B

    with mpmath.workdps(40):
        return float(mpmath.findroot(conditions, start, tol=1e-25)[3])


@pytest.mark.parametrize(("majority", "energy_h"), R_0)
def test_the_critical_imbalance_solves_the_conditions_of_optimality(majority, energy_h):
    minority = 10 - majority
    critical = critical_imbalance(majority, minority, 1, energy_h)
    solution = layer_peeled_model([critical] * majority + [1] * minority, 1, energy_h)
    U, S, Vh = torch.linalg.svd(solution.between)
    u = U[:, 0] * S[0] * Vh[0, 0].sign()
    start = *map(float, (solution.within[0], *u)), critical
    expected = merging_imbalance(majority, minority, mpmath.sqrt(energy_h), start)
    assert critical == pytest.approx(expected, rel=1.5e-6)
    assert expected == pytest.approx(R_0[majority, energy_h], rel=1e-3)


@pytest.mark.parametrize(("majority", "energy_h"), R_0)
def test_the_minority_merges_at_the_critical_imbalance_and_not_before(majority, energy_h):
    minority = 10 - majority
    critical = critical_imbalance(majority, minority, 1, energy_h)
    assert critical == pytest.approx(R_0[majority, energy_h], rel=1e-3)
    for factor, merged in ((0.97, False), (0.9999, False), (1.0001, True), (1.03, True)):
        counts = [factor * critical] * majority + [1] * minority
        solution = layer_peeled_model(counts, 1, energy_h)
        assert solution.collapsed.tolist() == [False, merged]
        cosine = solution.mean_cosine_w(range(majority, 10))
        assert cosine == pytest.approx(1, abs=1e-9) if merged else cosine < 0.9999


def test_only_the_product_of_the_energies_matters():
    expected = critical_imbalance(5, 5, 1, 5)
    assert critical_imbalance(5, 5, 50, 0.1) == pytest.approx(expected, rel=1e-5)


def test_more_energy_and_a_larger_minority_postpone_it():
    by_energy = [critical_imbalance(4, 3, 1, energy_h) for energy_h in (0.01, 1, 4)]
    by_size = [critical_imbalance(4, minority, 1, 4) for minority in (2, 3, 5)]
    assert 1 < by_energy[0] < 1.1
    assert by_energy == sorted(by_energy)
    assert by_size == sorted(by_size)


def test_with_energies_of_trained_nets_it_is_never_reached():
    assert critical_imbalance(5, 5, 1, 500) == math.inf


def test_one_majority_class_is_enough():
    critical = critical_imbalance(1, 2, 1, 1)
    below, above = (layer_peeled_model([f * critical, 1, 1], 1, 1) for f in (0.99, 1.01))
    assert below.mean_cosine_w([1, 2]) < 1 - 1e-4
    assert above.mean_cosine_w([1, 2]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("majority", "minority"), [(0, 5), (9, 1), (9, 0), (-1, 3)])
def test_without_a_majority_or_a_pair_of_minority_classes_it_is_undefined(majority, minority):
    with pytest.raises(ValueError, match="two or more minority classes"):
        critical_imbalance(majority, minority, 1, 5)


@pytest.mark.parametrize("number", [2.5, math.nan])
def test_numbers_of_classes_are_whole(number):
    with pytest.raises(ValueError, match=f"num_majority must be a whole number, got {number}"):
        critical_imbalance(number, 2, 1, 5)
    with pytest.raises(ValueError, match=f"num_minority must be a whole number, got {number}"):
        critical_imbalance(2, number, 1, 5)


@pytest.mark.parametrize("energies", [(0, 1), (1, -1), (math.nan, 1), (1, math.inf)])
def test_energies_must_be_positive_and_finite(energies):
    with pytest.raises(ValueError, match="must be positive and finite"):
        critical_imbalance(5, 5, *energies)
