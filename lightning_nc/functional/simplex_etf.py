"""NC2: how far the Gram matrix of class means is from that of a simplex ETF."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_nc.functional.class_pairs import squares_of_pairs
from lightning_nc.functional.cosines import centred
from lightning_nc.functional.powers_of_two import scaled


def simplex_etf_error(means: Tensor) -> Tensor:
    r"""NC2: the distance of the class means' Gram matrix from that of a simplex ETF; ideal 0.

    .. math:: \left\lVert \frac{G}{\lVert G \rVert_F}
        - \frac{I - \mathbf 1 \mathbf 1^\top / K}{\sqrt{K-1}} \right\rVert_F, \quad G = M M^\top

    where M has the rows ``mu_k - mu_G``; the means are centred here.

    Args:
        means: Class means, shape ``(K, d)``.

    Returns:
        A float64 scalar in [0, sqrt(2 - 2 / sqrt(K-1))], hence 0 for any two means and at most 1.15
        for ten, where all means are on a line; NaN if all means coincide, or for a single one.

    Example:
        Four corners of a square: G has diagonal blocks [[1, -1], [-1, 1]] and norm sqrt(8).

        >>> square = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> simplex_etf_error(square)  # sqrt(2 - 2 * sqrt(2 / 3))
        tensor(0.6058, dtype=torch.float64)

    Source:
        Wu & Papyan (2024), "Linguistic collapse: neural collapse in (large) language models",
        NeurIPS 37, by their code. Zhu et al. (2021), "A geometric analysis of neural collapse with
        unconstrained features", NeurIPS 34, compare ``W W^T`` of the classifier, not centred, with
        the same simplex: another quantity.
    """
    return simplex_etf_error_of(centred(means))


def simplex_etf_error_of(M: Tensor) -> Tensor:
    """Return `simplex_etf_error` of centred class means."""
    K, M = len(M), scaled(M)
    if 2 * M.shape[1] < K:  # no simplex: the error is large, and known from M^T M alone
        alike = torch.linalg.vector_norm(M).square() / torch.linalg.norm(M.mT @ M) / (K - 1) ** 0.5
        return (2 - 2 * alike).sqrt()
    norm = _norm_of_gram(M)
    on_axes = 1 / max(K - 1, 1) ** 0.5  # a single mean is centred, so that its norm is 0

    def without_simplex(G: Tensor, on_diagonal: bool) -> Tensor:
        difference = G / norm + on_axes / K
        if on_diagonal:
            difference.diagonal().sub_(on_axes)
        return difference

    return _norm_of_gram(M, without_simplex)


def _norm_of_gram(
    M: Tensor, of: Callable[[Tensor, bool], Tensor] = lambda G, on_diagonal: G
) -> Tensor:
    """The Frobenius norm of a symmetric function of ``G = M M^T``, of which squares are formed.

    Args:
        M: Shape ``(K, d)``.
        of: Receives a square of G, and whether it is on the diagonal.
    """
    norm = M.new_zeros(())
    for i, j in squares_of_pairs(len(M)):
        own = torch.linalg.norm(of(M[i] @ M[j].mT, i == j))
        norm = torch.hypot(norm, own if i == j else 2**0.5 * own)  # for its mirror image, too
    return norm
