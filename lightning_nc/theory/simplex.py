"""The simplex ETF: the frame that class means and classifier rows form at neural collapse."""

import torch
from torch import Tensor

from lightning_nc.arguments import require_whole_number


def simplex_etf(K: int, d: int, generator: torch.Generator | None = None) -> Tensor:
    r"""K unit vectors in R^d that are as far apart as possible: a regular simplex.

    .. math:: m_i^\top m_j = \frac{K}{K-1} \delta_{ij} - \frac{1}{K-1}, \quad \sum_k m_k = 0

    Args:
        K: Number of vectors, 2 or more.
        d: Dimension, ``K - 1`` or more.
        generator: Rotates the simplex at random. Without it, the simplex is always the same, in the
            first ``K - 1`` coordinates.

    Returns:
        Rows of norm 1 with pairwise cosines ``-1/(K-1)``, float64, shape ``(K, d)``.

    Raises:
        ValueError: If K < 2 or d < K - 1.

    Example:
        An equilateral triangle:

        >>> simplex_etf(3, 2)
        tensor([[ 0.8660,  0.5000],
                [-0.8660,  0.5000],
                [ 0.0000, -1.0000]], dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    K, d = require_whole_number("K", K, None), require_whole_number("d", d, None)
    if K < 2 or d < K - 1:
        raise ValueError(
            f"A simplex of K >= 2 vectors needs d >= K - 1 dimensions; got K = {K}, d = {d}."
        )
    # column j contrasts the first j vectors with the next; once scaled, the columns are orthonormal
    # and orthogonal to 1
    j = torch.arange(1, K, dtype=torch.float64)
    columns = torch.ones(K, K - 1, dtype=torch.float64).triu()
    columns[1:] -= torch.diag(j)
    simplex = torch.zeros(K, d, dtype=torch.float64)
    simplex[:, : K - 1] = columns / (j * (j + 1)).sqrt() * (K / (K - 1)) ** 0.5
    if generator is None:
        return simplex
    Q, R = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    return simplex @ (Q * R.diagonal().sign())  # uniform over rotations and reflections
