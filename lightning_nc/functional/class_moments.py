"""Moments of features class by class, and the one rule that pools them: one pass, exact.

For users with a loop of their own. The within-class scatter is kept as a factor R of up to 3d
rows, scatter = R^T R, and never multiplied out: squares along a direction are then sums of squares,
never negative and exact however much larger the scatter is in other directions. The callbacks take
two passes instead and keep nothing d x d (see `class_geometry`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ClassGeometry,
    class_sums,
    separating_directions,
)
from lightning_nc.functional.input_checks import warn_if_degenerate


class ClassMoments(NamedTuple):
    """The moments of a set of features.

    Attributes:
        counts: Samples per class, n_k, shape ``(K,)``.
        means: Class means mu_k, shape ``(K, d)``; zero for a class without samples.
        squares: Sum of ``||h_i - mu_k||^2`` over each class, shape ``(K,)``.
        factor: R with ``R^T R = sum_i (h_i - mu_{y_i})(h_i - mu_{y_i})^T`` over all samples, shape
            ``(m, d)``.
    """

    counts: Tensor
    means: Tensor
    squares: Tensor
    factor: Tensor


def class_moments(features: Tensor, labels: Tensor, num_classes: int) -> ClassMoments:
    """Compute the moments of one batch.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        labels: Class indices in ``0 .. num_classes - 1``, shape ``(N,)``.
        num_classes: Number of classes K.

    Example:
        >>> moments = class_moments(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), 2)
        >>> moments.means.flatten(), moments.factor.mT @ moments.factor  # (1 - 2)^2 + (3 - 2)^2
        (tensor([2., 0.], dtype=torch.float64), tensor([[2.]], dtype=torch.float64))
    """
    counts, sums = class_sums(features, labels, num_classes)
    means = sums / counts.clamp(min=1)[:, None]
    r = features.detach().double() - means[labels]
    squares = torch.zeros_like(counts).index_add_(0, labels, r.square().sum(1))
    return ClassMoments(counts, means, squares, _compressed(r))


def pool_moments(a: ClassMoments, b: ClassMoments) -> ClassMoments:
    """Pool the moments of two disjoint sets of samples, batches and processes alike.

    ``scatter = scatter_a + scatter_b + sum_k (n_a n_b / (n_a + n_b)) delta_k delta_k^T``
    with ``delta_k`` the difference of the two means of class k: the factors are stacked, with rows
    ``sqrt(n_a n_b / (n_a + n_b)) delta_k``.

    Example:
        >>> label = torch.tensor([0])
        >>> one, three = (class_moments(torch.tensor([[h]]), label, 1) for h in (1.0, 3.0))
        >>> pool_moments(one, three).factor.square().sum()  # (1 - 2)^2 + (3 - 2)^2
        tensor(2.0000, dtype=torch.float64)

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
        _compressed(torch.cat([a.factor, b.factor, weights.sqrt()[:, None] * delta])),
    )


def geometry_of_moments(moments: ClassMoments) -> ClassGeometry:
    """The class geometry that moments determine; squared residuals are shared out by class size.

    The pooled factor does not tell classes apart: only the sums over classes of ``fuzziness`` and
    ``collapse`` mean anything here.
    """
    counts, means, squares, factor = moments
    directions = separating_directions(counts, means)
    shares = counts / counts.sum()

    def along(P: Tensor) -> Tensor:
        return shares * (factor @ P).square().sum()

    warn_if_degenerate(directions.rank, means)
    return ClassGeometry(
        counts,
        means,
        directions.rank,
        along(directions.fuzziness),
        along(directions.collapse),
        squares,
    )


def _compressed(factor: Tensor) -> Tensor:
    """A factor with the same Gram matrix and no more than d rows, once it has three times as many.

    An orthogonal decomposition keeps the small directions that a d x d product would round away;
    waiting for 3d rows spreads its cost over as many samples.
    """
    d = factor.shape[1]
    return torch.linalg.qr(factor, mode="r").R if len(factor) > 3 * d else factor
