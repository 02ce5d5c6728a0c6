"""Label-aware kernels: a tangent kernel plus an estimate of whether two samples share a label."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.local_elasticity import normalised_kernel
from lightning_nc.functional.powers_of_two import scale_of


class PairFeatureRegression(NamedTuple):
    r"""A regression of label products on three features of a pair; see `fit_pair_features`.

    Attributes:
        intercept: beta_0, a scalar.
        coefficients: beta_1, beta_2 and beta_3, of ``x.x'``, ``||x - x'||^2`` and ``NTK(x, x')``,
            shape ``(3,)``.
    """

    intercept: Tensor
    coefficients: Tensor

    def __call__(self, first: Tensor, second: Tensor, kernel: Tensor) -> Tensor:
        r"""Estimate the product of the labels of x and x': 1 same, -1 different, 0 unknown.

        .. math:: Z(x, x') = \beta_0 + \beta_1 \, x \cdot x' + \beta_2 \lVert x - x' \rVert^2
            + \beta_3 \, NTK(x, x')

        Args:
            first: Samples x, shape ``(a, d)``.
            second: Samples x', shape ``(b, d)``.
            kernel: ``NTK(x, x')`` of the same network as in the fit, shape ``(a, b)``.

        Returns:
            Z, float64, shape ``(a, b)``; mostly in [-1, 1], but not bounded.

        Raises:
            ValueError: If the kernel does not have shape ``(a, b)``.
        """
        return self.intercept + _pair_features(first, second, kernel) @ self.coefficients


def label_aware_kernel(kernel: Tensor, label_products: Tensor, weight: float = 1.0) -> Tensor:
    r"""Add label information to a tangent kernel: it rises within classes and falls between them.

    .. math:: LANTK(x, x') = \frac{NTK(x, x')}{\sqrt{NTK(x, x) \, NTK(x', x')}}
        + \text{weight} \cdot Z(x, x')

    Z is dimensionless, so the kernel is normalised by its diagonal before Z is added. With weight
    1, certainty that two samples share a label (Z = 1) counts as much as the normalised kernel of a
    sample with itself. On the diagonal nothing needs to be estimated: a label times itself is 1,
    so Z(x, x) = 1 there.

    Args:
        kernel: NTK, symmetric, shape ``(m, m)``.
        label_products: Z of the same samples, from `PairFeatureRegression` or
            `RandomFeatureRegression`, shape ``(m, m)``.
        weight: Weight of Z relative to the normalised kernel.

    Returns:
        The kernel, float64, shape ``(m, m)``, with 1 + weight on the diagonal; NaN for samples with
        a diagonal entry of NTK that is not positive. It need not be positive semidefinite, since Z
        need not be. Where Z separates easy classes with certainty, the mean over pairs of different
        classes is negative and the relative ratio undefined: use a smaller weight.

    Raises:
        ValueError: If the shapes differ or are not square.

    Example:
        >>> ntk = torch.tensor([[4.0, 1.0], [1.0, 1.0]])
        >>> Z = torch.tensor([[0.75, -0.25], [-0.25, 0.75]])
        >>> label_aware_kernel(ntk, Z)  # off the diagonal 1 / sqrt(4 * 1) - 1/4
        tensor([[2.0000, 0.2500],
                [0.2500, 2.0000]], dtype=torch.float64)

    Source:
        Chen, He & Su (2020), "Label-aware neural tangent kernel: toward better generalization and
        local elasticity", NeurIPS.
    """
    m = len(kernel)
    if kernel.shape != (m, m) or label_products.shape != (m, m):
        raise ValueError(
            "Need a kernel and label products of the same samples, both of shape (m, m), "
            f"got {tuple(kernel.shape)} and {tuple(label_products.shape)}."
        )
    Z = label_products.double().clone().fill_diagonal_(1)
    return normalised_kernel(kernel) + weight * Z


def fit_pair_features(
    samples: Tensor, labels: Tensor, kernel: Tensor, ridge: float = 1e-3
) -> PairFeatureRegression:
    r"""Learn which pairs share a label from their inner products, distances and kernel.

    This is ridge regression over the ordered training pairs i != j, on three features ``z_ij``:

    .. math:: z_{ij} = (x_i \cdot x_j, \lVert x_i - x_j \rVert^2, NTK(x_i, x_j)), \qquad
        \min_{\beta_0, \beta} \operatorname{mean}_{i \ne j}
        (y_i y_j - \beta_0 - \beta \cdot z_{ij})^2 + \text{ridge} \sum_f s_f^2 \beta_f^2

    where s_f is the standard deviation of feature f, so that the units of features do not matter.

    Args:
        samples: Training samples x_i, shape ``(n, d)``.
        labels: Labels y_i, -1 or 1, shape ``(n,)``.
        kernel: NTK of the training samples, shape ``(n, n)``.
        ridge: Strength of the penalty relative to the variance of each feature; positive,
            dimensionless.

    Returns:
        `PairFeatureRegression`, float64, to be called with samples and their kernel. A feature that
        is the same for all pairs has coefficient 0.

    Raises:
        ValueError: If labels are not -1 and 1, shapes do not match, or the ridge is not positive.

    Example:
        If y_i y_j is half the kernel and the samples carry no information, the coefficient is 0.5:

        >>> x, y = torch.zeros(4, 2), torch.tensor([1, 1, -1, -1])
        >>> Z = fit_pair_features(x, y, kernel=2 * torch.outer(y, y), ridge=1e-9)
        >>> Z.coefficients
        tensor([0.0000, 0.0000, 0.5000], dtype=torch.float64)

    Source:
        Chen, He & Su (2020), "Label-aware neural tangent kernel: toward better generalization and
        local elasticity", NeurIPS.
    """
    y = check_training(samples, labels, ridge)
    pairs = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    z, t = _pair_features(samples, samples, kernel)[pairs], torch.outer(y, y)[pairs]
    unit = scale_of(z, 0)[0]
    z = z / unit
    # a feature without variance carries no information: s = 1 leaves its coefficient at 0
    s = z.std(0, correction=0)
    s = torch.where(s > 0, s, 1)
    F, b = (z - z.mean(0)) / s, t - t.mean()
    identity = torch.eye(F.shape[1], dtype=F.dtype, device=F.device)
    beta = torch.linalg.solve(F.mT @ F / len(F) + ridge * identity, F.mT @ b / len(F)) / s
    return PairFeatureRegression(t.mean() - z.mean(0) @ beta, beta / unit)


def _pair_features(first: Tensor, second: Tensor, kernel: Tensor) -> Tensor:
    """The inner product, squared distance and kernel of each pair, shape ``(a, b, 3)``."""
    x, x_ = first.double(), second.double()
    inner = x @ x_.mT
    if kernel.shape != inner.shape:
        raise ValueError(
            f"The kernel of {len(x)} and {len(x_)} samples must have shape {tuple(inner.shape)}, "
            f"got {tuple(kernel.shape)}."
        )
    # not by inner products, which cost digits far from the origin
    distances = torch.cdist(x, x_, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.stack([inner, distances, kernel.double()], 2)


def check_training(samples: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """Return the labels in float64; raise if samples, labels or ridge are invalid."""
    plain = samples.ndim == 2 and labels.shape == samples.shape[:1]
    if not plain or len(samples) < 2 or samples.shape[1] == 0:
        raise ValueError(
            "Need two or more samples of shape (n, d), d of 1 or more, and labels of shape (n,), "
            f"got {tuple(samples.shape)} and {tuple(labels.shape)}."
        )
    y = labels.double()
    values = set(y.tolist())
    if values != {-1.0, 1.0}:
        raise ValueError(
            f"Labels must be -1 and 1, and both must occur, got {sorted(values)[:5]}: "
            "map one class to -1 and the other to 1."
        )
    if not ridge > 0:
        raise ValueError(f"The ridge must be positive, got {ridge}; 1e-6 is almost none.")
    return y
