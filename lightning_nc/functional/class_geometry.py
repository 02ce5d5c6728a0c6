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

from lightning_nc.functional.class_sums import class_sums, column_blocks, sum_by_class
from lightning_nc.functional.input_checks import (
    check_features,
    number_of_classes,
    require_every_class,
    warn_if_degenerate,
)
from lightning_nc.functional.powers_of_two import in_units_of, scale_of


class ProjectedResiduals(NamedTuple):
    """The residuals ``r_i = h_i - mu_{y_i}`` of a batch, as the second sweep projects them.

    Attributes:
        along: ``P^T r_i`` for signal directions P of m columns, shape ``(m, N)``.
        squares: ``||r_i||^2``, shape ``(N,)``.
        class_sums: Sum of ``r_i`` over each class, shape ``(K, d)``; None if not requested.
    """

    along: Tensor
    squares: Tensor
    class_sums: Tensor | None


class ClassGeometry(NamedTuple):
    """The class means of a layer and the spread of its samples about them.

    The signal directions are ``P = V S^-1`` (see `signal_directions`), and the residuals are
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


def signal_directions(
    means: Tensor, weights: Tensor, terms: float | Tensor = 1
) -> tuple[Tensor, Tensor]:
    r"""Return the directions along which class means differ, scaled to whiten their covariance.

    Let ``A = diag(sqrt(weights)) (means - weighted mean) = U S V^T``, so that the between-class
    covariance is ``A^T A``. Then ``P = V S^-1`` satisfies ``||P^T r||^2 = r^T (A^T A)^+ r`` for
    every residual r.

    Since the means are centred, at most ``min(K - 1, d)`` directions are kept: a relative cutoff
    alone would keep the null direction when the means have a large common offset. Of these,
    directions whose singular value is below 1e-12 of the largest, or below the rounding error of
    the means (as for a layer of dead units), are dropped and returned as zero columns.

    Args:
        means: Class means, float64, shape ``(K, d)``.
        weights: Weights of the classes, with sum 1, shape ``(K,)``.
        terms: Number of terms summed for a mean, which bounds its relative rounding error in units
            of the machine epsilon.

    Returns:
        ``P``, float64, shape ``(d, min(K - 1, d))``, and the number of directions kept, a scalar
        tensor.

    Example:
        >>> P, rank = signal_directions(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]).double(),
        ...                             torch.tensor([0.5, 0.5]).double())
        >>> P.abs(), rank  # S = 2 along the first axis
        (tensor([[0.5000],
                [0.0000]], dtype=torch.float64), tensor(1))
    """
    centred = means - weights @ means
    centred = centred - weights @ centred  # removes the rounding error of the first mean
    _, s, Vh = torch.linalg.svd(weights.sqrt()[:, None] * centred, full_matrices=False)
    directions = min(means.shape[0] - 1, means.shape[1])
    s, V = s[:directions], Vh[:directions].mT
    largest = torch.linalg.vector_norm(means, dim=1).max()
    rounding = terms * torch.finfo(means.dtype).eps * largest
    kept = (s > 1e-12 * s[:1]) & (s > rounding)
    return V * torch.where(kept, 1 / s, 0), kept.sum()


def project_residuals(
    features: Tensor, labels: Tensor, means: Tensor, P: Tensor, sum_residuals: bool = False
) -> ProjectedResiduals:
    """Project the residuals about the final class means, in the second of the two sweeps.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices, shape ``(N,)``.
        means: Final class means, float64, shape ``(K, d)``.
        P: Directions to project on, float64, shape ``(d, m)``.
        sum_residuals: Whether to sum the residuals of each class. The sums are zero unless the
            features have changed since the means were computed.

    Returns:
        `ProjectedResiduals`, float64.

    Example:
        >>> means, P = torch.tensor([[0.0], [4.0]]).double(), torch.tensor([[0.5]]).double()
        >>> project_residuals(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]), means, P)[:2]
        (tensor([[ 0.5000, -1.0000]], dtype=torch.float64), tensor([1., 4.], dtype=torch.float64))
    """
    features = features.detach()
    along = features.new_zeros(P.shape[1], len(features), dtype=torch.float64)
    squares = features.new_zeros(len(features), dtype=torch.float64)
    sums = torch.zeros_like(means) if sum_residuals else None
    for columns in column_blocks(features):
        r = means[:, columns].index_select(0, labels)
        torch.sub(features[:, columns], r, out=r)
        along.addmm_(P[columns].mT, r.mT)
        if sums is not None:
            sums[:, columns] = sum_by_class(r, labels, len(means))
        squares += r.square_().sum(1)
    return ProjectedResiduals(along, squares, sums)


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
    counts, sums = class_sums(features, labels, K)
    require_every_class(counts)
    means = sums / counts[:, None]
    directions = separating_directions(counts, means)
    residuals = project_residuals(features, labels, means, directions.stacked)
    warn_if_degenerate(directions.rank, means)
    along_fuzziness, along_collapse = directions.squares(residuals.along)
    return ClassGeometry(
        counts,
        means,
        directions.rank,
        fuzziness=sum_by_class(along_fuzziness, labels, K),
        collapse=sum_by_class(along_collapse, labels, K),
        squares=sum_by_class(residuals.squares, labels, K),
        scale=scale,
    )


class SeparatingDirections(NamedTuple):
    """The signal directions of D and of NC1; the same tensor for both if classes are balanced.

    Attributes:
        fuzziness: P with the class weights n_k/n of D, shape ``(d, min(K - 1, d))``.
        collapse: P with the class weights 1/K of NC1, of the same shape.
        rank: Number of directions of D that were kept, a scalar.
    """

    fuzziness: Tensor
    collapse: Tensor
    rank: Tensor

    @property
    def stacked(self) -> Tensor:
        """All columns to project on, without duplicates."""
        balanced = self.collapse is self.fuzziness
        return self.fuzziness if balanced else torch.cat([self.fuzziness, self.collapse], 1)

    def squares(self, along: Tensor) -> tuple[Tensor, Tensor]:
        """The squared lengths along the directions of D and of NC1, from projections ``(m, N)``."""
        of_fuzziness, of_collapse = along.square().tensor_split([self.fuzziness.shape[1]])
        fuzziness = of_fuzziness.sum(0)
        return fuzziness, of_collapse.sum(0) if len(of_collapse) else fuzziness


def separating_directions(counts: Tensor, means: Tensor) -> SeparatingDirections:
    """The signal directions of class means, weighted by n_k/n for D and by 1/K for NC1."""
    terms = counts.max() + 16  # 16 more for the centring and the decomposition
    fuzziness, rank = signal_directions(means, counts / counts.sum(), terms)
    if bool((counts == counts[0]).all()):
        return SeparatingDirections(fuzziness, fuzziness, rank)
    uniform = torch.full_like(counts, 1 / len(counts))
    return SeparatingDirections(fuzziness, signal_directions(means, uniform, terms)[0], rank)


def undefined_without_signal(value: Tensor, rank: Tensor) -> Tensor:
    """Return the value, or NaN if the class means coincide and leave no signal to divide by."""
    return torch.where(rank > 0, value, torch.nan)
