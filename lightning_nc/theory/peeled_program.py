r"""The Layer-Peeled Model, reduced to a few numbers by the symmetry of exchangeable classes.

The convex relaxation minimises over a Gram matrix X of features and classifier rows, but the loss
depends only on the logits ``z_kj = h_k . w_j = X[k, K+j]``. There is a positive semidefinite X with
logits Z, ``(1/K) sum ||h_k||^2 <= E_H`` and ``(1/K) sum ||w_k||^2 <= E_W`` iff the nuclear norm of
Z is at most ``K sqrt(E_H E_W)`` (scale h and w to equal energies, then Fazel, Hindi & Boyd 2001).
The model therefore minimises a convex function of Z on a ball of the nuclear norm.

Averaged over permutations of the classes within each group, Z splits into

- ``sigma_g = z_own - z_same`` for each group of m_g >= 2 classes, with multiplicity m_g - 1, and
- the (G, G) block Y with ``z_own + (m_g - 1) z_same`` on its diagonal and
  ``sqrt(m_g m_g') z_gg'`` off it,

here in units of ``s = sqrt(E_H E_W)``: ``sum_g (m_g - 1) |sigma_g| + ||Y||_* <= K``.
"""

from typing import NamedTuple

import numpy as np


class Certified(NamedTuple):
    """A feasible point, with an upper bound on its gap to the optimum.

    Attributes:
        within: ``sigma_g``, shape ``(G,)``; 0 for a group of one class.
        between: The block Y, shape ``(G, G)``.
        loss: The objective at this point.
        multiplier: Spectral norm of the gradient with respect to Z; at the optimum
            ``(2/K) sqrt(lambda_H lambda_W)``.
        gap: The objective minus a lower bound on the optimum, both in float64.
    """

    within: np.ndarray
    between: np.ndarray
    loss: float
    multiplier: float
    gap: float


class PeeledProgram:
    """The reduced program: its loss, derivatives and certificate.

    A point is a vector x of the G values sigma_g and the G^2 entries of Y, row by row.

    Attributes:
        m: Number of classes in each group, shape ``(G,)``.
        share: Share of each group in all samples, ``m_g n_g / N``, shape ``(G,)``.
        s: ``sqrt(E_H E_W)``, the unit of the logits.
        margins: Matrix that maps x to the distinct wrong logits minus the own one, in units of s.
        owner: Group of the class to which each of these margins belongs.
        log_multiplicity: Logarithm of the number of classes with the same wrong logit.
    """

    def __init__(self, sizes: np.ndarray, counts: np.ndarray, s: float) -> None:
        self.m = m = sizes.astype(float)
        self.K = m.sum()
        self.share = m * counts / (m @ counts)
        self.s = s
        G = len(m)
        within, between = np.eye(G + G * G)[:G], np.eye(G + G * G)[G:].reshape(G, G, -1)
        rows, owner, multiplicity = [], [], []
        for g in range(G):
            same = (between[g, g] - within[g]) / m[g]
            own = same + within[g]
            for j in range(G):
                times = m[j] - (j == g)
                if times > 0:
                    logit = same if j == g else between[g, j] / np.sqrt(m[g] * m[j])
                    rows.append(logit - own)
                    owner.append(g)
                    multiplicity.append(times)
        self.margins = np.array(rows)
        self.owner = np.array(owner)
        self.log_multiplicity = np.log(multiplicity)

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return sigma, shape ``(G,)``, and Y, shape ``(G, G)``, of a point."""
        G = len(self.m)
        return x[:G], x[G:].reshape(G, G)

    def odds(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The odds of the wrong classes against the own one: per margin, and summed per group."""
        with np.errstate(over="ignore"):  # they may be infinite far from the optimum
            odds = np.exp(self.s * (self.margins @ x) + self.log_multiplicity)
        return odds, np.bincount(self.owner, odds, minlength=len(self.m))

    def loss(self, x: np.ndarray) -> float:
        """The objective, accurate even far below machine precision."""
        return float(self.share @ np.log1p(self.odds(x)[1]))

    def derivatives(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The objective, its gradient and its Hessian."""
        odds, total = self.odds(x)
        p = odds / (1 + total)[self.owner]  # probabilities of the wrong classes
        weight = self.share[self.owner] * p
        mean = np.zeros((len(self.m), len(x)))
        np.add.at(mean, self.owner, p[:, None] * self.margins)
        hessian = self.margins.T @ (weight[:, None] * self.margins)
        hessian -= mean.T @ (self.share[:, None] * mean)
        gradient = self.s * (weight @ self.margins)
        return float(self.share @ np.log1p(total)), gradient, self.s**2 * hessian

    def certify(self, x: np.ndarray) -> Certified:
        """Move a point to the boundary of the ball and bound its gap to the optimum.

        The rows of Z are centred, which preserves the loss and does not increase the nuclear norm.
        The loss f is convex, so ``f >= f(x) + min_x' <grad f(x), x' - x>`` on the whole ball, and
        the minimum of ``<grad f(x), x'>`` is minus the radius times the spectral norm of the
        gradient.
        """
        within, between = self.split(x)
        nowhere = Certified(within, between, np.inf, np.nan, np.inf)
        if not np.isfinite(x).all():
            return nowhere
        ones = np.sqrt(self.m / self.K)
        between = between - np.outer(between @ ones, ones)
        within = np.where(self.m > 1, np.maximum(within, 0), 0)
        nuclear = (self.m - 1) @ within + np.linalg.norm(between, "nuc")
        if not nuclear > 0:  # zero is never optimal
            return nowhere
        x = np.concatenate([within, between.ravel()]) * (self.K / nuclear)
        with np.errstate(invalid="ignore"):
            loss, gradient, _ = self.derivatives(x)
        if not np.isfinite(gradient).all():
            return nowhere
        slope_within, slope_between = self.split(gradient)
        several = self.m > 1
        slopes = np.abs(slope_within[several]) / (self.m[several] - 1)
        spectral = max(np.linalg.norm(slope_between, 2), *slopes, 0.0)
        gap = max(float(gradient @ x + self.K * spectral), 0.0)
        return Certified(*self.split(x), loss, float(spectral / self.s), gap)
