"""The simplex symmetry of risk-minimising classifiers in their last two layers."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.cosines import centred
from lightning_nc.functional.input_checks import check_vectors
from lightning_nc.functional.powers_of_two import scaled


class SimplexSymmetry(NamedTuple):
    """How far class values are from a simplex and the classifier from an isometry; all ideally 0.

    Attributes:
        distances: Spread (std / mean) of ``||y_i - y_l||`` over pairs.
        angles: Spread (std / |mean|) of ``<y_i - y_l, y_l - y_j>`` over distinct i, l, j.
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
    undefined = y.new_tensor(torch.nan)
    center = torch.linalg.norm(y.mean(0)) / y.square().sum(1).mean().sqrt()
    return SimplexSymmetry(
        _relative_spread(torch.nn.functional.pdist(y)),
        _spread_of_corner_products(y) if len(y) > 2 else undefined,
        center,
        undefined if A is None else _isometry(centred(y), A),
        undefined if A is None else _misalignment(centred(y), A),
    )


def _spread_of_corner_products(y: Tensor) -> Tensor:
    """The relative spread of `_corner_products`, of which there are too many to keep."""
    K = len(y)
    count = K * (K - 1) * (K - 2) / 2
    mean = torch.stack([products.sum() for products in _corner_products(y)]).sum() / count
    squares = [(products - mean).square().sum() for products in _corner_products(y)]
    return (torch.stack(squares).sum() / count).sqrt() / mean.abs()


def _corner_products(y: Tensor) -> Iterator[Tensor]:
    """For each l, all ``<y_i - y_l, y_l - y_j>`` with i < j and l different from both."""
    i, j = torch.triu_indices(len(y) - 1, len(y) - 1, 1, device=y.device)
    for corner in range(len(y)):
        edges = torch.cat([y[:corner], y[corner + 1 :]]) - y[corner]  # y_i - y_l, i != l
        yield -(edges @ edges.mT)[i, j]


def _isometry(m: Tensor, A: Tensor) -> Tensor:
    """The spread of the singular values of A, ``(K, d)``, on the span of the centred values m."""
    _, s, Vh = torch.linalg.svd(m, full_matrices=False)
    kept = s[: len(m) - 1] > 1e-12 * s[0]
    return _relative_spread(torch.linalg.svdvals(A @ Vh[: len(kept)][kept].mT))


def _misalignment(m: Tensor, A: Tensor) -> Tensor:
    cosines = torch.nn.functional.cosine_similarity(scaled(A, 1), scaled(m, 1), dim=1, eps=0.0)
    return (1 - cosines).clamp(min=0).mean()  # rounding may lift a cosine above 1


def _relative_spread(x: Tensor) -> Tensor:
    """The population standard deviation over the absolute mean; 0 if all values are equal."""
    return (x - x.mean()).square().mean().sqrt() / x.mean().abs()
