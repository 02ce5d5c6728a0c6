"""Solve the reduced program: a convex solver finds a start, Newton's method the digits."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from lightning_nc.theory.peeled_program import Certified, PeeledProgram

CERTIFIED = 1e-8  # relative gap above which a solution is rejected
EXACT = 1e-12  # relative gap below which the search ends
_ROUNDS = 3
_SMALL_ODDS = 0.01  # odds of the wrong classes below which a loss is replaced by its tangent
_NEWTON_STEPS = 10
_LONGEST = 0.3  # longest Newton step relative to the norm of the factors


def solve_program(program: PeeledProgram) -> Certified:
    """Return the minimiser with a certified gap.

    Raises:
        ImportError: If cvxpy is not installed.
        RuntimeError: If the solver fails, or no point with a small enough gap is found.
    """
    best: Certified | None = None
    for start in _starting_points(program):
        found = refine(program, start)
        if best is None or relative_gap(program, found) < relative_gap(program, best):
            best = found
        if relative_gap(program, best) <= EXACT:
            break
    if best is None or not relative_gap(program, best) <= CERTIFIED:
        reached = math.nan if best is None else relative_gap(program, best)
        raise RuntimeError(
            "The Layer-Peeled Model could not be solved: the relative duality gap is "
            f"{reached:.1e}, above {CERTIFIED:.0e}, for {len(program.m)} groups of classes and "
            f"sqrt(E_W E_H) = {program.s:.6g}. Energies that are very large or very small leave "
            "no digits in float64; try less extreme ones."
        )
    return best


def relative_gap(program: PeeledProgram, point: Certified) -> float:
    """The gap relative to the loss or, if smaller, to its linearised decrease from Z = 0."""
    size = min(point.loss, program.K * program.s * point.multiplier)
    return point.gap / size if 0 < size < math.inf else math.inf


def _starting_points(program: PeeledProgram) -> Iterator[np.ndarray]:
    """Yield solutions of convex programs, each rescaled by the best solution so far.

    A trained net's loss may be 1e-20, and a solver then accepts any point as optimal. So the first
    program minimises the logarithm of an upper bound, ``log1p(t) <= t``, which has no scale and is
    exact for small losses; the next ones minimise the loss divided by its value at the best point
    so far.
    """
    best = start = _solve_convex(program, None)
    yield start
    for _ in range(_ROUNDS):
        if program.loss(start) < program.loss(best):
            best = start
        if not 0 < program.loss(best) < math.inf:
            return
        start = _solve_convex(program, best)
        yield start


def _solve_convex(program: PeeledProgram, at: np.ndarray | None) -> np.ndarray:
    """Minimise the loss divided by its value at a point; without one, the log of its bound."""
    cp = _import_cvxpy()
    G = len(program.m)
    within, between = cp.Variable(G, nonneg=True), cp.Variable((G, G))
    x = cp.hstack([within, cp.vec(between, order="C")])
    exponents = program.s * program.margins @ x + program.log_multiplicity
    constraints = [(program.m - 1) @ within + cp.normNuc(between) <= program.K]
    if at is None:
        objective = cp.log_sum_exp(exponents + np.log(program.share[program.owner]))
    else:
        objective = _rescaled_loss(cp, program, exponents, at)
    status = _run(cp, cp.Problem(cp.Minimize(objective), constraints))
    found = np.array(np.nan if x.value is None else x.value, float)
    if status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or not np.isfinite(found).all():
        raise RuntimeError(
            f"The solver of the Layer-Peeled Model did not converge: its status is {status}, for "
            f"{G} groups of classes and sqrt(E_W E_H) = {program.s:.6g}."
        )
    return found


def _run(cp: Any, problem: Any) -> str:
    """Solve a problem with Clarabel and return its status."""
    tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about accuracy, which is certified later
        try:
            problem.solve(solver=cp.CLARABEL, **tolerances)
        except BaseException as error:
            # a panic in Clarabel's Rust code is a BaseException, but not an Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise RuntimeError(f"The Layer-Peeled Model solver failed: {error}") from error
    return str(problem.status)


def _rescaled_loss(cp: Any, program: PeeledProgram, exponents: Any, at: np.ndarray) -> Any:
    """The loss divided by its value at a point, with small losses replaced by their tangent.

    The tangent in the odds, ``log1p(t) <= log1p(t_0) + (t - t_0) / (1 + t_0)``, reaches the solver
    in full precision.
    """
    odds, weights = program.odds(at)[1], program.share / program.loss(at)
    losses = []
    for g, weight in enumerate(weights):
        own = exponents[np.flatnonzero(program.owner == g)]
        if odds[g] < _SMALL_ODDS:
            losses.append(cp.sum(cp.exp(own + math.log(weight / (1 + odds[g])))))
        else:
            losses.append(weight * cp.log_sum_exp(cp.hstack([0, own])))
    return sum(losses)


def refine(program: PeeledProgram, start: np.ndarray) -> Certified:
    """Apply Newton's method to factors ``Y = P Q^T``, ``sigma = a^2``, and return the best point.

    In the factors, the nuclear norm is the smooth
    ``(||P||^2 + ||Q||^2) / 2 + sum_g (m_g - 1) a_g^2``. If the optimum has a lower rank, the
    surplus columns tend to zero. The best point is the one with the smallest gap.
    """
    within, between = program.split(start)
    U, S, Vt = np.linalg.svd(between)
    factors = np.concatenate(
        [
            np.sqrt(np.maximum(within, 0)),
            (U * np.sqrt(S)).ravel(),
            (Vt.T * np.sqrt(S)).ravel(),
        ]
    )
    best = program.certify(start)
    for _ in range(_NEWTON_STEPS):
        if relative_gap(program, best) <= EXACT:
            break
        with np.errstate(all="ignore"):
            step = _newton_step(program, factors)
        if step is None:
            break
        factors = factors + step
        found = program.certify(_product(program, factors))
        if found.gap < best.gap:
            best = found
    return best


def _product(program: PeeledProgram, factors: np.ndarray) -> np.ndarray:
    a, P, Q = _split_factors(program, factors)
    return np.concatenate([a**2, (P @ Q.T).ravel()])


def _newton_step(program: PeeledProgram, factors: np.ndarray) -> np.ndarray | None:
    """The Newton step to a stationary point of ``loss + multiplier (norm - K)``.

    None if the step cannot be computed.
    """
    a, P, Q = _split_factors(program, factors)
    G, several = len(a), program.m - 1
    loss, gradient, hessian = program.derivatives(_product(program, factors))
    gradient, hessian = gradient / loss, hessian / loss
    eye = np.eye(G)
    J = np.zeros((G + G * G, G + 2 * G * G))  # Jacobian of the point with respect to the factors
    J[:G, :G] = np.diag(2 * a)
    J[G:, G : G + G * G] = np.kron(eye, Q)
    J[G:, G + G * G :] = np.einsum("jk,ir->ijkr", eye, P).reshape(G * G, G * G)
    normal = np.concatenate([2 * several * a, P.ravel(), Q.ravel()])  # gradient of the norm
    slope = gradient @ J
    multiplier = -(slope @ normal) / (normal @ normal)
    L = J.T @ hessian @ J + multiplier * np.diag(np.r_[2 * several, np.ones(2 * G * G)])
    L[:G, :G] += np.diag(2 * gradient[:G])
    bilinear = np.kron(gradient[G:].reshape(G, G), eye)
    L[G : G + G * G, G + G * G :] += bilinear
    L[G + G * G :, G : G + G * G] += bilinear.T
    excess = (normal @ factors) / 2 - program.K
    system = np.block([[L, normal[:, None]], [normal[None], np.zeros((1, 1))]])
    right = -np.append(slope + multiplier * normal, excess)
    if not np.isfinite(system).all():
        return None
    # a common rotation of P and Q changes nothing: least squares leaves it out
    step = np.linalg.lstsq(system, right, rcond=1e-11)[0][:-1]
    longest = _LONGEST * np.linalg.norm(factors)
    return step * min(1.0, longest / max(np.linalg.norm(step), longest))


def _split_factors(
    program: PeeledProgram, factors: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    G = len(program.m)
    P, Q = factors[G:].reshape(2, G, G)
    return factors[:G], P, Q


def _import_cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError as error:
        raise ImportError(
            "The Layer-Peeled Model needs cvxpy, which is not installed: "
            'pip install "lightning-neural-collapse[theory]".'
        ) from error
    return cvxpy
