"""Three classes in the plane of their means: a snapshot of neural collapse."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.cosines import centred
from lightning_nc.functional.powers_of_two import scaled


class SimplexPlane(NamedTuple):
    """Coordinates in the plane of three class means; means and rows are each centred.

    Attributes:
        means: Coordinates of the class means, divided by their mean norm, shape ``(3, 2)``.
        rows: Coordinates of the classifier rows, divided by their mean norm, shape ``(3, 2)``.
    """

    means: Tensor
    rows: Tensor


def simplex_plane(means: Tensor, weight: Tensor) -> SimplexPlane:
    r"""Project the class means and classifier rows of three classes on the plane of the means.

    At neural collapse, means and rows lie at the corners of an equilateral triangle, the mean and
    the row of a class at the same corner. The plane is rotated (and reflected) so that the means
    are as close as possible to the corners :math:`(\cos \phi_k, \sin \phi_k)`,
    :math:`\phi_k = 90° + 120° k`.

    Args:
        means: Class means mu_k, shape ``(3, d)``, with d of 2 or more.
        weight: Classifier rows w_k, shape ``(3, d)``.

    Returns:
        `SimplexPlane`, float64, dimensionless. Rows that point out of the plane are short. Means
        that all coincide are NaN, and so are rows that do.

    Raises:
        ValueError: If there are not three of each, of the same dimension d >= 2.

    Example:
        >>> corners = torch.tensor([[0.0, 2.0], [-(3**0.5), -1.0], [3**0.5, -1.0]])
        >>> plane = simplex_plane(5 + corners, 3 * corners)
        >>> torch.allclose(plane.means, plane.rows)
        True
        >>> [round(x, 4) + 0.0 for x in plane.means[1].tolist()]  # at 210 degrees
        [-0.866, -0.5]

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40), figure 1.
    """
    if means.shape != weight.shape or len(means) != 3 or means.shape[1] < 2:
        raise ValueError(
            "Need class means and classifier rows of three classes in two dimensions or more, got "
            f"shapes {tuple(means.shape)} and {tuple(weight.shape)}."
        )
    M, W = scaled(centred(means)), scaled(centred(weight))
    plane = torch.linalg.svd(M, full_matrices=False).Vh[:2]
    phi = math.pi * (0.5 + 2 * torch.arange(3, device=M.device, dtype=torch.float64) / 3)
    corners = torch.stack([phi.cos(), phi.sin()], 1)
    # orthogonal Procrustes: the orthogonal R that minimises || M plane^T R - corners ||
    U, _, Vh = torch.linalg.svd((M @ plane.mT).mT @ corners)
    turned = plane.mT @ U @ Vh
    return SimplexPlane(*(X @ turned / X.norm(dim=1).mean() for X in (M, W)))
