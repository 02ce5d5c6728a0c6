"""The predictions of the Layer-Peeled Model, per group of classes of equal size."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_nc.theory.simplex import simplex_etf

VANISHED = 1e-4  # a norm below this fraction of sqrt(E) has no direction in float64
_ATTAINED = 1e-9


@dataclass(frozen=True, eq=False)
class LayerPeeledSolution:
    r"""The minimiser of the Layer-Peeled Model, in terms of G groups of classes of equal size.

    The classes of a group are exchangeable, so a few numbers per group describe all features and
    classifier rows: norms, and cosines within a group and between groups.

    Attributes:
        energy_w: ``E_W``.
        energy_h: ``E_H``.
        group_of: Group of each class, from the largest count down, shape ``(K,)``.
        group_sizes: Number of classes in each group ``m_g``, shape ``(G,)``.
        group_counts: Samples per class in each group ``n_g``, the arithmetic mean, shape ``(G,)``.
        counts_merged: Whether classes of different counts share a group. The solution is then that
            of the mean counts, an approximation for the given ones.
        within: ``(z_own - z_same) / sqrt(E_W E_H)`` of each group, where z_own is the logit of the
            own class and z_same that of another class of the group; 0 if the group has merged or
            has one class, shape ``(G,)``.
        between: ``(z_own + (m_g - 1) z_same) / sqrt(E_W E_H)`` on the diagonal; off it,
            ``sqrt(m_g m_g') / sqrt(E_W E_H)`` times the logit of group g for group g', shape
            ``(G, G)``.
        objective: Mean cross-entropy, in nats.
        duality_gap: The objective minus a lower bound on the minimum, computed in float64 from the
            gradient at this solution, independently of the solver.
        multiplier: ``(2/K) sqrt(lambda_H lambda_W)``, the largest singular value of the objective's
            gradient with respect to the logits.
    """

    energy_w: float
    energy_h: float
    group_of: Tensor
    group_sizes: Tensor
    group_counts: Tensor
    counts_merged: bool
    within: Tensor
    between: Tensor
    objective: float
    duality_gap: float
    multiplier: float

    @property
    def lambda_w(self) -> float:
        """The multiplier of the bound E_W: the decrease of the objective per unit of E_W."""
        return len(self.group_of) / 2 * self.multiplier * math.sqrt(self.energy_h / self.energy_w)

    @property
    def lambda_h(self) -> float:
        """The multiplier of the bound E_H: the decrease of the objective per unit of E_H."""
        return len(self.group_of) / 2 * self.multiplier * math.sqrt(self.energy_w / self.energy_h)

    @property
    def collapsed(self) -> Tensor:
        """Whether the classes of a group share one feature and one classifier row, ``(G,)``, bool.

        True iff ``n_g / N <= (2/K) sqrt(lambda_H lambda_W)``; False for groups of one class.
        """
        share = self.group_counts / (self.group_counts @ self.group_sizes.double())
        return (share <= self.multiplier) & (self.group_sizes > 1)

    @property
    def norm_w(self) -> Tensor:
        """The norm of the classifier rows of each group, shape ``(G,)``."""
        return self._norms(self._products()[0])

    @property
    def norm_h(self) -> Tensor:
        """The norm of the features of each group, shape ``(G,)``."""
        return self._norms(self._products()[1])

    @property
    def cosine_w(self) -> Tensor:
        """The cosine between the classifier rows of two classes, shape ``(G, G)``.

        The diagonal is for two classes of the same group, and is NaN for a group of one class. NaN
        also where a norm is below 1e-4 sqrt(E_W).
        """
        return self._cosines(self._products()[0], self.energy_w)

    @property
    def cosine_h(self) -> Tensor:
        """The cosine between the features of two classes, as in `cosine_w`, shape ``(G, G)``."""
        return self._cosines(self._products()[1], self.energy_h)

    def mean_cosine_w(self, classes: Iterable[int]) -> float:
        """The mean cosine over pairs of classifier rows of given classes, such as the minority.

        Args:
            classes: Class indices, each once.

        Returns:
            A value in [-1, 1]: ``-1/(K-1)`` for balanced classes, 1 at Minority Collapse; NaN for
            fewer than two classes, or if the row of one of them has vanished.
        """
        groups = self.group_of[list(classes)]
        i, j = torch.triu_indices(len(groups), len(groups), 1, device=groups.device)
        return float(self.cosine_w[groups[i], groups[j]].mean())

    def gram(self) -> Tensor:
        """The Gram matrix X of ``h_1 .. h_K, w_1 .. w_K``, shape ``(2K, 2K)``."""
        W, H = self.recover(len(self.group_of) - 1)
        both = torch.cat([H, W])
        return both @ both.mT

    def recover(self, p: int) -> tuple[Tensor, Tensor]:
        """Recover a classifier and features that attain the objective.

        By the paper, the relaxation is tight for p >= 2K. In fact p >= K - 1 suffices: each row of
        the optimal logits sums to zero, so their rank is at most K - 1.

        Args:
            p: Dimension of the features.

        Returns:
            W and H, with one feature per class, each float64 of shape ``(K, p)``; unique up to a
            common rotation or reflection.

        Raises:
            ValueError: If p < K - 1.
            RuntimeError: If the loss misses the objective, or an energy exceeds its bound, by a
                relative error above 1e-9.
        """
        K = len(self.group_of)
        if p < K - 1:
            raise ValueError(
                f"{K} classes need features of dimension p >= K - 1 = {K - 1}, got {p}."
            )
        U, S, Vh = torch.linalg.svd(self.between)
        U, V = U * S.sqrt(), Vh.mT * S.sqrt()
        W, H = self.between.new_zeros(2, K, p)
        G = len(S)
        if G > 1:  # the last singular value is 0, since the rows are centred
            scale = self.group_sizes.double().sqrt()[self.group_of, None]
            H[:, : G - 1] = U[self.group_of, :-1] / scale
            W[:, : G - 1] = V[self.group_of, :-1] / scale
        column = G - 1
        for g, m in enumerate(self.group_sizes.tolist()):
            if m > 1:  # within a group, features and rows form a simplex about their mean
                simplex = simplex_etf(m, m - 1).to(H) * (self.within[g] * (m - 1) / m).sqrt()
                for vectors in (W, H):
                    vectors[self.group_of == g, column : column + m - 1] = simplex
                column += m - 1
        W, H = W * math.sqrt(self.energy_w), H * math.sqrt(self.energy_h)
        self._check(W, H)
        return W, H

    def _check(self, W: Tensor, H: Tensor) -> None:
        """Raise unless W and H attain the objective within their energies."""
        z = H @ W.mT
        odds = (z - z.diagonal()[:, None]).exp().fill_diagonal_(0)
        losses = odds.sum(1).log1p()
        n = self.group_counts[self.group_of]
        loss = float(n @ losses / n.sum())
        energies = [float(vectors.square().sum()) / len(z) for vectors in (W, H)]
        if not (
            abs(loss - self.objective) <= _ATTAINED * self.objective
            and energies[0] <= self.energy_w * (1 + _ATTAINED)
            and energies[1] <= self.energy_h * (1 + _ATTAINED)
        ):
            raise RuntimeError(
                f"The recovered classifier and features have loss {loss:.12g} with energies "
                f"{energies[0]:.12g} and {energies[1]:.12g}; the solution has "
                f"{self.objective:.12g} with {self.energy_w:.12g} and {self.energy_h:.12g}."
            )

    def _products(self) -> tuple[Tensor, Tensor]:
        """Inner products of rows, ``(Z^T Z)^(1/2)``, and of features, ``(Z Z^T)^(1/2)``.

        Each has shape ``(G, 1 + G)``: the first column is for a class with itself, the rest for two
        different classes.
        """
        U, S, Vh = torch.linalg.svd(self.between)
        m = self.group_sizes.double()
        found = []
        for energy, basis in ((self.energy_w, Vh.mT), (self.energy_h, U)):
            block = (basis * S) @ basis.mT
            other = block / (m[:, None] * m).sqrt()
            other -= torch.diag(self.within / m)
            own = other.diagonal() + self.within
            found.append(energy * torch.cat([own[:, None], other], 1))
        return found[0], found[1]

    def _norms(self, products: Tensor) -> Tensor:
        return products[:, 0].clamp(min=0).sqrt()

    def _cosines(self, products: Tensor, energy: float) -> Tensor:
        norms = self._norms(products)
        norms = torch.where(norms > VANISHED * math.sqrt(energy), norms, torch.nan)
        cosines = (products[:, 1:] / norms[:, None] / norms).clamp(-1, 1)
        single = torch.diag(self.group_sizes == 1)
        return torch.where(single, torch.nan, cosines)
