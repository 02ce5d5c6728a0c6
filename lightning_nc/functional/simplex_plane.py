"""Three classes seen in the plane of their means: a snapshot of neural collapse."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.cosines import centred


class SimplexPlane(NamedTuple):
    """Coordinates in the plane of three class means, both about their centre.

    Attributes:
        means: Of the class means, by their mean norm, shape ``(3, 2)``.
        rows: Of the classifier's rows, by theirs, shape ``(3, 2)``.
    """

    means: Tensor
    rows: Tensor


def simplex_plane(means: Tensor, weight: Tensor) -> SimplexPlane:
    r"""Class means and classifier rows of three classes, in the plane of the means.

    At neural collapse both are at the corners of an equilateral triangle, and those of a class at
    the same. The plane is turned (and mirrored) to where the means are as near as can be to the
    corners :math:`(\cos \phi_k, \sin \phi_k)`, :math:`\phi_k = 90° + 120° k`.

    Args:
        means: Class means mu_k, shape ``(3, d)``, d of 2 or more.
        weight: Classifier rows w_k, shape ``(3, d)``.

    Returns:
        `SimplexPlane`, float64 without unit. Rows are short where they point out of the plane; NaN
        where all means, or all rows, coincide.

    Raises:
        ValueError: If there are not three of each.

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
            "A plane is that of three classes in two dimensions or more, got means of shape "
            f"{tuple(means.shape)} and rows of shape {tuple(weight.shape)}."
        )
    M, W = centred(means.double()), centred(weight.double())
    plane = torch.linalg.svd(M, full_matrices=False).Vh[:2]
    phi = math.pi * (0.5 + 2 * torch.arange(3, device=M.device, dtype=torch.float64) / 3)
    corners = torch.stack([phi.cos(), phi.sin()], 1)
    # orthogonal Procrustes: the turn R that minimises || M plane^T R - corners ||
    U, _, Vh = torch.linalg.svd((M @ plane.mT).mT @ corners)
    turned = plane.mT @ U @ Vh
    return SimplexPlane(*(X @ turned / X.norm(dim=1).mean() for X in (M, W)))
