"""Moments of features by class, computed in one sweep, and the exact rule that pools them.

For users with their own loop. The within-class scatter R^T R is stored as the factor R, with up to
3d rows, and never multiplied out: the scatter along a direction is then a sum of squares, never
negative, and accurate however much larger the scatter is in other directions. The callbacks make
two sweeps instead and store nothing d x d (see `class_geometry`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.class_sums import ClassMembers
from lightning_nc.functional.input_checks import check_features, warn_if_degenerate
from lightning_nc.functional.powers_of_two import in_units_of, scale_of
from lightning_nc.functional.separating_directions import separating_directions


class ClassMoments(NamedTuple):
    """The moments of a set of features, by class, with lengths in units of ``scale``.

    Attributes:
        counts: Samples per class, n_k, shape ``(K,)``.
        means: Class means mu_k, shape ``(K, d)``; zero for a class without samples.
        squares: Sum of ``||h_i - mu_k||^2`` over each class, shape ``(K,)``.
        factor: R with ``R^T R = sum_i (h_i - mu_{y_i})(h_i - mu_{y_i})^T`` over all samples, shape
            ``(m, d)``.
        scale: The unit of lengths: a power of two, 1 for features of ordinary size.
    """

    counts: Tensor
    means: Tensor
    squares: Tensor
    factor: Tensor
    scale: float = 1.0


def class_moments(features: Tensor, labels: Tensor, num_classes: int) -> ClassMoments:
    """Compute the moments of one batch.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``; N may be 0.
        labels: Class indices in ``0 .. num_classes - 1``, shape ``(N,)``.
        num_classes: Number of classes K.

    Returns:
        `ClassMoments`, float64.

    Raises:
        TypeError: If features are not floating point, or labels are not integers.
        ValueError: If shapes do not match, features are not finite, or a label is out of range.

    Example:
        >>> moments = class_moments(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), 2)
        >>> moments.means.flatten(), moments.factor.mT @ moments.factor  # (1 - 2)^2 + (3 - 2)^2
        (tensor([2., 0.], dtype=torch.float64), tensor([[2.]], dtype=torch.float64))
    """
    scale = 1.0
    if len(features):
        labels = check_features(features, labels)
        scale = float(scale_of(features))
        if int(labels.max()) >= num_classes:
            raise ValueError(
                f"Label {int(labels.max())} is out of range for {num_classes} classes."
            )
    features = in_units_of(scale, features.detach())
    members = ClassMembers(labels, num_classes)
    counts = members.counts
    means = members.sums_of_features(features) / counts.clamp(min=1)[:, None]
    r = features.double() - means[labels]
    squares = members.sums_of(r.square().sum(1))
    return ClassMoments(counts, means, squares, _compressed(r), scale)


def pool_moments(a: ClassMoments, b: ClassMoments) -> ClassMoments:
    """Pool the moments of two disjoint sets of samples, such as batches or processes.

    ``scatter = scatter_a + scatter_b + sum_k (n_a n_b / (n_a + n_b)) delta_k delta_k^T``,
    where n_a and n_b are the counts of class k in the two sets and ``delta_k`` is the difference of
    its two means. The factors are stacked, together with the rows
    ``sqrt(n_a n_b / (n_a + n_b)) delta_k``.

    Args:
        a: Moments of the first set.
        b: Moments of the second set, with the same K and d.

    Returns:
        `ClassMoments` of the union, float64.

    Example:
        >>> label = torch.tensor([0])
        >>> one, three = (class_moments(torch.tensor([[h]]), label, 1) for h in (1.0, 3.0))
        >>> pool_moments(one, three).factor.square().sum()  # (1 - 2)^2 + (3 - 2)^2
        tensor(2.0000, dtype=torch.float64)

    Source:
        Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance: analysis and
        recommendations", The American Statistician 37(3).
    """
    scale = max(a.scale, b.scale)
    a, b = _in_units_of(scale, a), _in_units_of(scale, b)
    counts = a.counts + b.counts
    delta = b.means - a.means
    share_b = b.counts / counts.clamp(min=1)
    weights = a.counts * share_b  # n_a n_b / (n_a + n_b)
    return ClassMoments(
        counts,
        a.means + share_b[:, None] * delta,
        a.squares + b.squares + weights * delta.square().sum(1),
        _compressed(torch.cat([a.factor, b.factor, weights.sqrt()[:, None] * delta])),
        scale,
    )


def geometry_of_moments(moments: ClassMoments) -> ClassGeometry:
    """The class geometry of moments, with projected residuals split among classes by their size.

    The pooled factor does not tell classes apart, so only the sums of ``fuzziness`` and
    ``collapse`` over classes are meaningful.
    """
    counts, means, squares, factor, scale = moments
    directions = separating_directions(counts, means)
    shares = counts / counts.sum()
    fuzziness, collapse = directions.squares((factor @ directions.basis).mT)
    warn_if_degenerate(directions.rank, means)
    return ClassGeometry(
        counts,
        means,
        directions.rank,
        shares * fuzziness.sum(),
        shares * collapse.sum(),
        squares,
        scale=scale,
    )


def _in_units_of(scale: float, moments: ClassMoments) -> ClassMoments:
    """The moments in units of a power of two."""
    if moments.scale == scale:
        return moments
    counts, means, squares, factor, own = moments
    ratio = own / scale
    return ClassMoments(counts, ratio * means, ratio * (ratio * squares), ratio * factor, scale)


def _compressed(factor: Tensor) -> Tensor:
    """Reduce a factor of more than 3d rows to d rows with the same ``R^T R``.

    A QR decomposition keeps the small directions that a d x d product would round away. Waiting
    for 3d rows spreads its cost over many samples.
    """
    d = factor.shape[1]
    return torch.linalg.qr(factor, mode="r").R if len(factor) > 3 * d else factor
