"""Quantities in 60 decimal digits, for small inputs on which float64 loses digits itself."""

import mpmath
import numpy as np

from tests.reference import classes_of


def separation_fuzziness(features, labels, class_weights=None):
    """`separation_fuzziness` in 60 digits, from the K x K Gram matrix of the class means.

    With A = diag(sqrt(weights)) (means - their weighted mean), A A^T = sum_j l_j u_j u_j^T, this
    is the mean over samples of sum_j (u_j^T A (h - mu_y))^2 / l_j^2.
    """
    with mpmath.workdps(60):
        h = np.vectorize(mpmath.mpf, otypes=[object])(np.asarray(features, np.float64))
        counts = [int((labels == k).sum()) for k in classes_of(labels)]
        means = np.stack([h[labels == k].sum(0) / counts[k] for k in classes_of(labels)])
        weights = class_weights or [mpmath.mpf(n) / len(h) for n in counts]
        roots = np.array([mpmath.sqrt(w) for w in weights])
        A = roots[:, None] * (means - np.array(weights) @ means)
        eigenvalues, U = mpmath.eigsy(mpmath.matrix((A @ A.T).tolist()))
        U = np.array(U.tolist(), dtype=object).reshape(len(means), len(means))
        order = sorted(range(len(means)), key=lambda j: eigenvalues[j], reverse=True)
        projected = (h - means[labels]) @ A.T @ U
        kept = order[: min(len(means) - 1, h.shape[1])]
        return float(sum((projected[:, j] ** 2).sum() / eigenvalues[j] ** 2 for j in kept) / len(h))


def variability_collapse(features, labels):
    K = len(classes_of(labels))
    return separation_fuzziness(features, labels, [mpmath.mpf(1) / K] * K) / K
