"""Class means, the directions they span, and how far samples stray from their means along them.

The quantities of a layer are computed from its `ClassGeometry`, which takes two sweeps over the
features, in float64: the first computes the class means, the second the residuals about those
final means. No d x d matrix is formed and only centred vectors are squared, so a collapsed class
(D ~ 1e-12) far from the origin is measured as accurately as any other.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_sums import ClassMembers, blocks
from lightning_nc.functional.input_checks import (
    check_features,
    number_of_classes,
    require_every_class,
    warn_if_degenerate,
)
from lightning_nc.functional.powers_of_two import in_units_of, scale_of
from lightning_nc.functional.separating_directions import separating_directions


class ProjectedResiduals(NamedTuple):
    """The residuals ``r_i = h_i - mu_{y_i}`` of a batch, as the second sweep projects them.

    Attributes:
        along: ``Q^T r_i`` for a basis Q of m columns, shape ``(m, N)``.
        squares: ``||r_i||^2``, shape ``(N,)``.
    """

    along: Tensor
    squares: Tensor


class ClassGeometry(NamedTuple):
    """The class means of a layer and the spread of its samples about them.

    The signal directions are ``P = V S^-1`` (see `SeparatingDirections`), and the residuals are
    ``r_i = h_i - mu_{y_i}``. Lengths are in units of ``scale``, so that the squares of very large
    or small features can be represented.

    Attributes:
        counts: Samples per class, n_k, shape ``(K,)``.
        means: Class means mu_k, shape ``(K, d)``.
        rank: Number of signal directions, at most min(K - 1, d), a scalar.
        fuzziness: Sum of ``||P^T r_i||^2`` over each class, with the class weights n_k/n of D in P,
            shape ``(K,)``.
        collapse: The same with the class weights 1/K of NC1, shape ``(K,)``.
        squares: Sum of ``||r_i||^2`` over each class, shape ``(K,)``.
        statistics: Further sums over samples, by name, if a measure declares any.
        scale: The unit of lengths: a power of two, 1 for features of ordinary size (float32 always,
            float64 from 1e-48 to 1e48).
    """

    counts: Tensor
    means: Tensor
    rank: Tensor
    fuzziness: Tensor
    collapse: Tensor
    squares: Tensor
    statistics: Mapping[str, Tensor] = MappingProxyType({})
    scale: float = 1.0


def project_residuals(
    features: Tensor,
    members: ClassMembers,
    means: Tensor,
    basis: Tensor,
    sums: Tensor | None = None,
) -> ProjectedResiduals:
    """Project the residuals about the final class means, in the second of the two sweeps.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        members: The class of each sample.
        means: Final class means, float64, shape ``(K, d)``.
        basis: Directions Q to project on, float64, shape ``(d, m)``; the axes if m = d.
        sums: To which the residuals of each class are added, float64, shape ``(K, d)``, if given.

    Returns:
        `ProjectedResiduals`, float64.

    Example:
        >>> means = torch.tensor([[0.0, 1.0], [4.0, 1.0]]).double()
        >>> Q = torch.tensor([[0.5], [0.0]]).double()
        >>> features = torch.tensor([[1.0, 1.0], [2.0, 1.0]])
        >>> tuple(project_residuals(features, ClassMembers(torch.tensor([0, 1]), 2), means, Q))
        (tensor([[ 0.5000, -1.0000]], dtype=torch.float64), tensor([1., 4.], dtype=torch.float64))
    """
    along = means.new_zeros(basis.shape[1], len(features))
    squares = means.new_zeros(len(features))
    all_axes = basis.shape[0] == basis.shape[1]  # see `SeparatingDirections`
    features = features.detach()
    for rows, columns in blocks(features):
        r = means[:, columns].index_select(0, members.labels[rows])
        torch.sub(features[rows, columns], r, out=r)
        if sums is not None:
            members.add(sums[:, columns], r, rows)
        if all_axes:
            along[columns, rows] = r.mT
        else:
            along[:, rows].addmm_(basis[columns].mT, r.mT)
        squares[rows].add_(r.square_().sum(1))
    return ProjectedResiduals(along, squares)


def class_geometry(features: Tensor, labels: Tensor) -> ClassGeometry:
    """Compute the class means of a set of features and the spread about them.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.

    Returns:
        `ClassGeometry`, float64.

    Raises:
        TypeError: If features are not floating point, or labels are not integers.
        ValueError: If shapes do not match, if features are not finite, if fewer than two classes
            have samples, or if a class up to the largest label has none.

    Warns:
        UserWarning: If the class means span fewer than ``min(K - 1, d)`` directions.

    Example:
        >>> geometry = class_geometry(torch.tensor([[1.0], [3.0], [-2.0]]), torch.tensor([0, 0, 1]))
        >>> geometry.counts, geometry.means.flatten()
        (tensor([2., 1.], dtype=torch.float64), tensor([ 2., -2.], dtype=torch.float64))
    """
    labels = check_features(features, labels)
    K = number_of_classes(labels)
    scale = float(scale_of(features))
    features = in_units_of(scale, features)
    members = ClassMembers(labels, K)
    counts = members.counts
    require_every_class(counts)
    means = members.sums_of_features(features) / counts[:, None]
    directions = separating_directions(counts, means)
    residuals = project_residuals(features, members, means, directions.basis)
    warn_if_degenerate(directions.rank, means)
    of_samples = torch.stack([*directions.squares(residuals.along), residuals.squares], 1)
    fuzziness, collapse, squares = members.sums_of(of_samples).unbind(1)
    return ClassGeometry(counts, means, directions.rank, fuzziness, collapse, squares, scale=scale)


def undefined_without_signal(value: Tensor, rank: Tensor) -> Tensor:
    """Return the value, or NaN if the class means coincide and leave no signal to divide by."""
    return torch.where(rank > 0, value, torch.nan)
