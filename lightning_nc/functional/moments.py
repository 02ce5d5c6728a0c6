"""Moments of features class by class, and the one rule that pools them: one pass, exact.

For users with a loop of their own. The scatter is d x d; the callbacks take two passes instead
(see `class_geometry`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ClassGeometry,
    class_sums,
    separating_directions,
    warn_if_degenerate,
)


class ClassMoments(NamedTuple):
    """The moments of a set of features.

    Attributes:
        counts: Samples per class, n_k, shape ``(K,)``.
        means: Class means mu_k, shape ``(K, d)``; zero for a class without samples.
        squares: Sum of ``||h_i - mu_k||^2`` over each class, shape ``(K,)``.
        scatter: Sum of ``(h_i - mu_{y_i})(h_i - mu_{y_i})^T`` over all samples, shape ``(d, d)``.
    """

    counts: Tensor
    means: Tensor
    squares: Tensor
    scatter: Tensor


def class_moments(features: Tensor, labels: Tensor, num_classes: int) -> ClassMoments:
    """Compute the moments of one batch.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices in ``0 .. num_classes - 1``, shape ``(N,)``.
        num_classes: Number of classes K.

    Example:
        >>> moments = class_moments(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), 2)
        >>> moments.means.flatten(), moments.scatter  # (1 - 2)^2 + (3 - 2)^2
        (tensor([2., 0.], dtype=torch.float64), tensor([[2.]], dtype=torch.float64))
    """
    counts, sums = class_sums(features, labels, num_classes)
    means = sums / counts.clamp(min=1)[:, None]
    r = features.double() - means[labels]
    squares = torch.zeros_like(counts).index_add_(0, labels, r.square().sum(1))
    return ClassMoments(counts, means, squares, r.mT @ r)


def pool_moments(a: ClassMoments, b: ClassMoments) -> ClassMoments:
    """Pool the moments of two disjoint sets of samples, batches and processes alike.

    No two large numbers are subtracted, so that the scatter stays exact when classes collapse:

    ``scatter = scatter_a + scatter_b + sum_k (n_a n_b / (n_a + n_b)) delta_k delta_k^T``
    with ``delta_k`` the difference of the two means of class k.

    Example:
        >>> label = torch.tensor([0])
        >>> one, three = (class_moments(torch.tensor([[h]]), label, 1) for h in (1.0, 3.0))
        >>> pool_moments(one, three).scatter  # (1 - 2)^2 + (3 - 2)^2
        tensor([[2.]], dtype=torch.float64)

    Source:
        Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance: analysis and
        recommendations", The American Statistician 37(3).
    """
    counts = a.counts + b.counts
    delta = b.means - a.means
    share_b = b.counts / counts.clamp(min=1)
    weights = a.counts * share_b  # n_a n_b / (n_a + n_b)
    return ClassMoments(
        counts,
        a.means + share_b[:, None] * delta,
        a.squares + b.squares + weights * delta.square().sum(1),
        a.scatter + b.scatter + torch.einsum("k,kd,ke->de", weights, delta, delta),
    )


def geometry_of_moments(moments: ClassMoments) -> ClassGeometry:
    """The class geometry that moments determine; squared residuals are shared out by class size.

    The pooled scatter does not tell classes apart: only the sums over classes of ``fuzziness`` and
    ``collapse`` mean anything here.
    """
    counts, means, squares, scatter = moments
    directions = separating_directions(counts, means)
    shares = counts / counts.sum()

    def along(P: Tensor) -> Tensor:
        return shares * torch.einsum("dr,de,er->", P, scatter, P)

    warn_if_degenerate(directions.rank, means)
    return ClassGeometry(
        counts,
        means,
        directions.rank,
        along(directions.fuzziness),
        along(directions.collapse),
        squares,
    )
