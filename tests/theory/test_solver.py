import warnings

import cvxpy as cp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from lightning_nc.theory import critical_imbalance, layer_peeled_model, peeled_solver
from lightning_nc.theory.peeled_program import PeeledProgram
from lightning_nc.theory.peeled_solver import refine, relative_gap, solve_program

COUNTS = [10] * 5 + [1] * 5


def program(R=10.0, s=5**0.5):
    return PeeledProgram(np.array([5, 5]), np.array([R, 1.0]), s)


def test_gradient_and_hessian_are_those_of_the_loss():
    peeled = PeeledProgram(np.array([3, 1, 4]), np.array([9.0, 2.0, 1.0]), 1.7)
    rng = np.random.default_rng(0)
    x, step = rng.normal(size=12), 1e-5
    _, gradient, hessian = peeled.derivatives(x)
    ends = [(x + step * e, x - step * e) for e in np.eye(12)]
    slopes = [(peeled.loss(a) - peeled.loss(b)) / (2 * step) for a, b in ends]
    curves = [(peeled.derivatives(a)[1] - peeled.derivatives(b)[1]) / (2 * step) for a, b in ends]
    assert_allclose(gradient, slopes, atol=1e-9)
    assert_allclose(hessian, curves, atol=1e-9)


def test_no_feasible_point_is_lower_than_the_certified_bound():
    peeled, rng = program(), np.random.default_rng(0)
    lowest = solve_program(peeled).loss
    for _ in range(200):
        point = peeled.certify(rng.normal(size=6))
        assert point.loss - point.gap <= lowest + 1e-12
        assert point.loss >= lowest - 1e-12
        radius = 4 * point.within.sum() + np.linalg.norm(point.between, "nuc")
        assert radius == pytest.approx(10)


def test_zero_is_never_certified():
    assert program().certify(np.zeros(6)).gap == np.inf


@pytest.mark.parametrize("R", [2, 10, 13, 1000])
@pytest.mark.parametrize("energy", [0.01, 5, 100, 2000])
def test_convex_solver_alone_and_with_newton_agree(monkeypatch, R, energy):
    exact = solve_program(program(R, energy**0.5))
    monkeypatch.setattr(peeled_solver, "_NEWTON_STEPS", 0)
    monkeypatch.setattr(peeled_solver, "CERTIFIED", 1e-3)
    alone = solve_program(program(R, energy**0.5))
    assert_allclose(alone.loss, exact.loss, rtol=1e-6)
    assert_allclose(alone.between, exact.between, atol=1e-3)
    assert_allclose(alone.within, exact.within, atol=1e-3)


@pytest.mark.parametrize("status", ["infeasible", "unbounded", "user_limit", "solver_error"])
def test_a_solver_that_did_not_converge_is_refused(monkeypatch, status):
    monkeypatch.setattr(peeled_solver, "_run", lambda cp, problem: status)
    with pytest.raises(RuntimeError, match=f"did not converge: its status is {status}"):
        layer_peeled_model(COUNTS, 1, 5)


def test_a_solver_that_says_optimal_and_returns_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(peeled_solver, "_run", lambda cp, problem: "optimal")
    with pytest.raises(RuntimeError, match="did not converge"):
        layer_peeled_model(COUNTS, 1, 5)


class PanicException(BaseException):
    """As pyo3 raises it when Clarabel panics."""


@pytest.mark.parametrize("error", [cp.SolverError("failed"), PanicException("panicked")])
def test_a_solver_that_fails_is_refused_with_its_message(monkeypatch, error):
    def solve(*args, **kwargs):
        raise error

    monkeypatch.setattr(cp.Problem, "solve", solve)
    with pytest.raises(RuntimeError, match=f"solver failed: {error}"):
        layer_peeled_model(COUNTS, 1, 5)
    with pytest.raises(RuntimeError, match="solver failed"):
        critical_imbalance(5, 5, 1, 5)


def test_an_interrupt_is_not_a_failure_of_the_solver(monkeypatch):
    def solve(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cp.Problem, "solve", solve)
    with pytest.raises(KeyboardInterrupt):
        layer_peeled_model(COUNTS, 1, 5)


def test_a_perturbed_solution_that_is_not_repaired_is_refused(monkeypatch):
    solved = peeled_solver._solve_convex
    monkeypatch.setattr(peeled_solver, "_NEWTON_STEPS", 0)
    monkeypatch.setattr(peeled_solver, "_solve_convex", lambda *args: 0.01 + solved(*args))
    with pytest.raises(RuntimeError, match=r"relative duality gap is .*e-0.*, above 1e-08"):
        layer_peeled_model(COUNTS, 1, 5)


def test_whatever_a_solver_returns_the_result_is_right_or_refused(monkeypatch):
    exact, rng = layer_peeled_model(COUNTS, 1, 5), np.random.default_rng(0)
    right = 0
    for scale in (1e-3, 1e-1, 1, 1, 10, 10, 100, 1e4):
        monkeypatch.setattr(
            peeled_solver, "_solve_convex", lambda *args, by=scale: by * rng.normal(size=6)
        )
        try:
            found = layer_peeled_model(COUNTS, 1, 5)
        except RuntimeError:
            continue
        right += 1
        assert_allclose(found.cosine_w, exact.cosine_w, atol=1e-3)
    assert right < 8


def test_newton_repairs_a_nearby_start():
    exact = solve_program(program())
    near = np.concatenate([exact.within, exact.between.ravel()]) * (1 + 1e-3 * np.arange(6))
    assert relative_gap(program(), program().certify(near)) > 1e-6
    assert relative_gap(program(), refine(program(), near)) < 1e-11


def test_energies_that_leave_no_digits_are_refused():
    with pytest.raises(RuntimeError, match="Layer-Peeled Model"):
        layer_peeled_model([2, 2, 1], 1e4, 1e4)


def test_solving_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for energy_h in (0.01, 5, 2000):
            layer_peeled_model([1000, 100, 100, 1, 1], 1, energy_h)
