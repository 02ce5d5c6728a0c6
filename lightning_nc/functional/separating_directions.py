"""The directions along which class means differ, with the class weights of D and of NC1."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_ROWS = 1024  # rows that a triangular factor takes up at a time, at least


class SeparatingDirections(NamedTuple):
    """The signal directions ``P = V S^-1`` of D and of NC1, as maps from a basis that they share.

    With weights w_k of the classes, let ``A = diag(sqrt(w)) (means - weighted mean) = U S V^T``, so
    that the between-class covariance is ``A^T A``. Then ``||P^T r||^2 = r^T (A^T A)^+ r`` for every
    residual r. Whatever the weights, the columns of P lie in the span of the differences of means.
    Residuals are therefore projected once, on an orthonormal basis Q of that span, and the maps
    are small: ``P = Q T``.

    Attributes:
        basis: Q, shape ``(d, m)`` with ``m = min(K - 1, d)``; the identity if m = d.
        fuzziness: T with the class weights n_k/n of D, shape ``(m, m)``; zero columns for
            directions that were dropped.
        collapse: T with the class weights 1/K of NC1, of the same shape; the same tensor if classes
            are balanced.
        rank: Number of directions of D that were kept, a scalar.
    """

    basis: Tensor
    fuzziness: Tensor
    collapse: Tensor
    rank: Tensor

    def squares(self, along: Tensor) -> tuple[Tensor, Tensor]:
        """Squared lengths ``||P^T r||^2`` for D and for NC1, from ``Q^T r``, shape ``(m, N)``."""
        fuzziness = (self.fuzziness.mT @ along).square_().sum(0)
        if self.collapse is self.fuzziness:
            return fuzziness, fuzziness
        return fuzziness, (self.collapse.mT @ along).square_().sum(0)


def separating_directions(counts: Tensor, means: Tensor) -> SeparatingDirections:
    """Return the signal directions of class means, weighted by n_k/n for D and by 1/K for NC1.

    At most ``min(K - 1, d)`` directions are kept: a relative cutoff alone would keep the null
    direction when the means have a large common offset. Of these, directions whose singular value
    is below 1e-12 of the largest, or below the rounding error of the means (as for a layer of dead
    units), are dropped.

    Besides the means, two arrays of their size are formed, and one of them is kept.

    Args:
        counts: Samples per class, n_k, shape ``(K,)``.
        means: Class means, float64, shape ``(K, d)``.

    Example:
        >>> two = torch.tensor([1.0, 1.0]).double()
        >>> found = separating_directions(two, torch.tensor([[2.0, 0.0], [-2.0, 0.0]]).double())
        >>> (found.basis @ found.fuzziness).abs(), found.rank  # S = 2 along the first axis
        (tensor([[0.5000],
                [0.0000]], dtype=torch.float64), tensor(1))
    """
    K, d = means.shape
    centred = means - means.mean(0)
    centred -= centred.mean(0)  # removes the rounding error of the first mean
    if d < K:
        Q, coordinates = torch.eye(d, dtype=means.dtype, device=means.device), centred
    else:
        # the last row is minus the sum of the others, so that no null direction can come in
        reflections = torch.geqrf(centred[:-1].mT)
        coordinates = centred.new_zeros(K, K - 1)
        coordinates[:-1] = reflections.a[: K - 1].triu().mT
        coordinates[-1] = -coordinates[:-1].sum(0)
        del centred  # before Q is formed
        Q = torch.linalg.householder_product(*reflections)
        del reflections
    terms = counts.max() + 16  # 16 more for the centring and the decompositions
    largest = torch.linalg.vector_norm(means, dim=1).max()
    rounding = terms * torch.finfo(means.dtype).eps * largest
    fuzziness, rank = _whitening(coordinates, counts / counts.sum(), rounding)
    if bool((counts == counts[0]).all()):
        return SeparatingDirections(Q, fuzziness, fuzziness, rank)
    uniform = torch.full_like(counts, 1 / K)
    return SeparatingDirections(Q, fuzziness, _whitening(coordinates, uniform, rounding)[0], rank)


def _whitening(coordinates: Tensor, weights: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """The map ``T = V S^-1`` of means in coordinates, shape ``(K, m)``, and the rank of these."""
    center = weights @ coordinates
    roots = weights.sqrt()[:, None]
    R = triangular_factor(coordinates, lambda part, rows: (rows - center).mul_(roots[part]))
    _, s, Vh = torch.linalg.svd(R)
    kept = significant(s, rounding)
    return Vh.mT * torch.where(kept, 1 / s, 0), kept.sum()


def significant(s: Tensor, rounding: Tensor | float = 0.0) -> Tensor:
    """Which singular values, the largest first, are directions and no errors of rounding."""
    return (s > 1e-12 * s[:1]) & (s > rounding)


def triangular_factor(
    A: Tensor, of_rows: Callable[[slice, Tensor], Tensor] = lambda _, rows: rows
) -> Tensor:
    """The upper triangular R with ``R^T R = A^T A``, by Householder reflections of blocks of rows.

    Args:
        A: Shape ``(K, m)``.
        of_rows: Computes rows of the matrix that is meant from these rows of A, and their places.

    Returns:
        R, shape ``(min(K, m), m)``, or of up to m rows if blocks are short.

    Example:
        >>> triangular_factor(torch.tensor([[3.0], [4.0]])).abs()
        tensor([[5.]])
    """
    R, step = A[:0], max(_ROWS, 4 * A.shape[1])
    for start in range(0, len(A), step):
        part = slice(start, start + step)
        R = torch.linalg.qr(torch.cat([R, of_rows(part, A[part])]), mode="r").R
    return R
