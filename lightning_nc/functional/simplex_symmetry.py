"""The simplex symmetry of risk-minimising classifiers in their last two layers."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_pairs import (
    MomentsOverPairs,
    compare_pairs,
    squares_of_vectors,
)
from lightning_nc.functional.cosines import centred
from lightning_nc.functional.input_checks import check_vectors
from lightning_nc.functional.powers_of_two import scaled
from lightning_nc.functional.separating_directions import significant, triangular_factor


class SimplexSymmetry(NamedTuple):
    """How far class values are from a simplex and the classifier from an isometry; all ideally 0.

    Standard deviations (std) are those of populations.

    Attributes:
        distances: Spread (std / mean) of ``||y_i - y_l||`` over pairs.
        angles: Spread (``std / |mean|``) of ``<y_i - y_l, y_l - y_j>`` over distinct i, l, j.
        center: ``||mean_i y_i||`` relative to the root mean square of ``||y_i||``.
        isometry: Spread (std / mean) of the singular values of A on the span of the centred
            values.
        alignment: Mean of ``1 - cos(a_i, y_i - mean)`` over classes, a_i the rows of A.
    """

    distances: Tensor
    angles: Tensor
    center: Tensor
    isometry: Tensor
    alignment: Tensor


def simplex_symmetry(values: Tensor, weight: Tensor | None = None) -> SimplexSymmetry:
    r"""Measure how far class values are from a regular simplex centred at the origin; ideally 0.

    Ideally, the class values y_i at the output or the penultimate layer have equal distances
    ``||y_i - y_l||``, equal products ``<y_i - y_l, y_l - y_j>`` and their centre of mass at the
    origin. The classifier A between the two layers is an isometric embedding of ``span{y_i}``
    (equal singular values there), with row i parallel to ``y_i - mean``.

    Args:
        values: Class values (means) ``y_i``, shape ``(K, d)``.
        weight: Classifier rows A, shape ``(K, d)``, for the penultimate layer; without it
            ``isometry`` and ``alignment`` are NaN.

    Returns:
        `SimplexSymmetry`, float64 scalars >= 0. ``angles`` needs three classes and is NaN for two;
        ratios to zero (all values equal, or zero) are NaN.

    Raises:
        ValueError: If fewer than two values are given, or the shapes do not match.

    Example:
        An equilateral triangle centred at the origin, and a classifier with parallel rows:

        >>> root3 = 3**0.5
        >>> triangle = torch.tensor([[2, 0], [-1, root3], [-1, -root3]], dtype=torch.float64)
        >>> all(deviation < 1e-12 for deviation in simplex_symmetry(triangle, 5 * triangle))
        True

        Shifted by its own radius, only the centre is off, by ``2 / sqrt(mean(16, 4, 4))``:

        >>> moved = simplex_symmetry(triangle + torch.tensor([2.0, 0.0]))
        >>> [round(float(deviation), 4) for deviation in moved[:3]]
        [0.0, 0.0, 0.7071]

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(
            f"Need values of two or more classes, shape (K, d); got {tuple(values.shape)}."
        )
    if weight is not None and weight.shape != values.shape:
        raise ValueError(
            "Need one classifier row per class value, of the same length; "
            f"got {tuple(weight.shape)} for values of shape {tuple(values.shape)}."
        )
    check_vectors(values)
    y, A = scaled(values), None if weight is None else scaled(weight)
    m, undefined = centred(y), y.new_tensor(torch.nan)
    distances = MomentsOverPairs(lambda square: square.squared_distances.sqrt())
    compare_pairs(m, [distances])
    center = torch.linalg.norm(y.mean(0)) / y.square().sum(1).mean().sqrt()
    return SimplexSymmetry(
        distances.deviation / distances.mean,
        _spread_of_corner_products(m) if len(m) > 2 else undefined,
        center,
        undefined if A is None else _isometry(m, A),
        undefined if A is None else _misalignment(m, A),
    )


def _spread_of_corner_products(m: Tensor) -> Tensor:
    """The relative spread of ``<y_i - y_l, y_l - y_j>`` over distinct i, l, j.

    The products are ``(d_ij - d_il - d_lj) / 2`` with the squared distances d, of which each pair
    is in K - 2 triples. Hence their mean is ``-D / 2`` with the mean D of d, and with ``e = d - D``
    the squared deviations sum up to ``((3 K - 4) sum_{i<j} e_ij^2 - sum_i (sum_j e_ij)^2) / 4``.
    What is subtracted is at most four fifths of the rest, so that no digits are lost.

    Args:
        m: Centred values, shape ``(K, d)``.
    """
    K = len(m)
    mean = 2 * m.square().sum() / (K - 1)  # D
    squares, by_class = m.new_zeros(()), m.new_zeros(K)
    for square in squares_of_vectors(m):
        i, j = square.first.places, square.second.places
        e = square.squared_distances - mean
        if square.on_diagonal:
            e.fill_diagonal_(0)
            squares = squares + e.square().sum() / 2
            by_class[i] += e.sum(1)
        else:
            squares = squares + e.square().sum()
            by_class[i] += e.sum(1)
            by_class[j] += e.sum(0)
    triples = K * (K - 1) * (K - 2) / 2
    deviations = ((3 * K - 4) * squares - by_class.square().sum()) / 4
    return (deviations / triples).sqrt() / (mean / 2)


def _isometry(m: Tensor, A: Tensor) -> Tensor:
    """The spread of the singular values of A, ``(K, d)``, on the span of the centred values m."""
    _, s, Vh = torch.linalg.svd(triangular_factor(m), full_matrices=False)
    kept = significant(s[: len(m) - 1])
    own = torch.linalg.svdvals(triangular_factor(A @ Vh[: len(kept)][kept].mT))
    return (own - own.mean()).square().mean().sqrt() / own.mean()


def _misalignment(m: Tensor, A: Tensor) -> Tensor:
    cosines = torch.nn.functional.cosine_similarity(scaled(A, 1), scaled(m, 1), dim=1, eps=0.0)
    return (1 - cosines).clamp(min=0).mean()  # rounding may lift a cosine above 1
