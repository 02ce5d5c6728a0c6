"""The relaxation as the paper has it: the Gram matrix of all classes, without symmetry."""

import cvxpy as cp
import numpy as np


def solve(class_counts, energy_w, energy_h):
    """Objective, X of shape (2K, 2K), and the multipliers lambda_W and lambda_H."""
    K = len(class_counts)
    X = cp.Variable((2 * K, 2 * K), PSD=True)
    energies = [cp.trace(X[K:, K:]) / K <= energy_w, cp.trace(X[:K, :K]) / K <= energy_h]
    loss = 0
    for k, n in enumerate(class_counts):
        z = X[k, K:]
        loss += n / sum(class_counts) * (cp.log_sum_exp(z) - z[k])
    problem = cp.Problem(cp.Minimize(loss), energies)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return problem.value, X.value, *(float(energy.dual_value) for energy in energies)


def cosines(X, group_of):
    """Cosines of features and of rows, each (G, G): the mean over pairs of different classes."""
    K = len(group_of)
    for block in (X[:K, :K], X[K:, K:]):
        norms = np.sqrt(np.diag(block))
        C = block / np.outer(norms, norms)
        np.fill_diagonal(C, np.nan)
        G = max(group_of) + 1
        found = np.full((G, G), np.nan)
        for g in range(G):
            for j in range(G):
                pairs = C[np.ix_(group_of == g, group_of == j)]
                if not np.isnan(pairs).all():
                    found[g, j] = np.nanmean(pairs)
        yield found
