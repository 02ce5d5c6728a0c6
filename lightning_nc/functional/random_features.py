"""Whether two samples share a label, estimated from products of random features."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.label_aware_kernel import check_training
from lightning_nc.functional.powers_of_two import scale_of


class RandomFeatureRegression(NamedTuple):
    r"""A regression of label products on products of random features; see `fit_random_features`.

    Attributes:
        directions: Random directions r_k, shape ``(D, d)``.
        offsets: Random offsets b_k, shape ``(D,)``.
        means: Mean m_k of each feature over the training samples, shape ``(D,)``.
        coefficients: beta_k, shape ``(D,)``.
    """

    directions: Tensor
    offsets: Tensor
    means: Tensor
    coefficients: Tensor

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        r"""Estimate the product of the labels of x and x': 1 same, -1 different, 0 unknown.

        .. math:: Z(x, x') = \sum_k \beta_k \, \phi_k(x) \, \phi_k(x')

        Args:
            first: Samples x, shape ``(a, d)``.
            second: Samples x', shape ``(b, d)``.

        Returns:
            Z, float64, shape ``(a, b)``; mostly in [-1, 1], but not bounded.
        """
        return self.features(first) * self.coefficients @ self.features(second).mT

    def features(self, samples: Tensor) -> Tensor:
        r"""The random features, centred on their means over the training samples, ``(a, D)``.

        .. math:: \phi_k(x) = \max(0, r_k \cdot x + b_k) - m_k
        """
        return (samples.double() @ self.directions.mT + self.offsets).relu() - self.means


def fit_random_features(
    samples: Tensor, labels: Tensor, num_features: int = 256, ridge: float = 0.1, seed: int = 0
) -> RandomFeatureRegression:
    r"""Learn which pairs share a label from coordinatewise products of random features.

    This is ridge regression over the ordered training pairs i != j on
    ``z_ij = phi(x_i) * phi(x_j)``, where phi are rectified random features, centred on their means:

    .. math:: \min_\beta \sum_{i \ne j} \Bigl(y_i y_j
        - \sum_k \beta_k \phi_k(x_i) \phi_k(x_j)\Bigr)^2
        + \text{ridge} \cdot \bar A \lVert \beta \rVert^2

    where A-bar is the mean over k of ``sum_{i != j} (phi_k(x_i) phi_k(x_j))^2``, so that the units
    of the samples do not matter.

    Args:
        samples: Training samples x_i, shape ``(n, d)``.
        labels: Labels y_i, -1 or 1, shape ``(n,)``.
        num_features: Number of random features D.
        ridge: Strength of the penalty relative to A-bar; positive, dimensionless.
        seed: Seed of the random features.

    Returns:
        `RandomFeatureRegression`, float64, to be called with samples.

    Raises:
        ValueError: If labels are not -1 and 1, shapes do not match, the ridge is not positive, or
            all samples are the same.

    Example:
        Two samples of each class, one class on either side of 0:

        >>> x, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([-1, -1, 1, 1])
        >>> Z = fit_random_features(x, y)
        >>> Z(torch.tensor([[-1.5], [1.5]]), torch.tensor([[1.5]])).sign()
        tensor([[-1.],
                [ 1.]], dtype=torch.float64)

    Source:
        Chen, He & Su (2020), "Label-aware neural tangent kernel: toward better generalization and
        local elasticity", NeurIPS.
    """
    y = check_training(samples, labels, ridge)
    phi, regression = _random_features(samples.double(), num_features, seed)
    # The sum over all n^2 pairs factorises, as z_ij is a product; the pairs i = j are subtracted:
    #   A_kl = sum_{i != j} z_ijk z_ijl = (sum_i phi_ik phi_il)^2 - sum_i phi_ik^2 phi_il^2
    #   b_k = sum_{i != j} y_i y_j z_ijk = (sum_i y_i phi_ik)^2 - sum_i phi_ik^2
    squares = phi.square()
    A = (phi.mT @ phi).square() - squares.mT @ squares
    b = (y @ phi).square() - squares.sum(0)
    identity = torch.eye(num_features, dtype=A.dtype, device=A.device)
    beta = torch.linalg.solve(A + ridge * A.diagonal().mean() * identity, b)
    return regression._replace(coefficients=beta)


def _random_features(
    samples: Tensor, num_features: int, seed: int
) -> tuple[Tensor, RandomFeatureRegression]:
    """Return the training samples' features, ``(n, D)``, and a regression with coefficients 0."""
    centre = samples.mean(0)
    unit = scale_of(samples - centre)
    radius = unit * ((samples - centre) / unit).square().sum(1).mean().sqrt()
    if not radius > 0:
        raise ValueError("All training samples are the same, so their labels cannot be told apart.")
    random = torch.Generator().manual_seed(seed)
    normal = torch.randn(num_features, samples.shape[1] + 1, dtype=torch.float64, generator=random)
    normal = normal.to(samples.device)
    # r.x + b = r.(x - centre) + a standard normal number: the kinks lie among the samples
    directions = normal[:, 1:] / radius
    offsets = normal[:, 0] - directions @ centre
    zero = torch.zeros(num_features, dtype=torch.float64, device=samples.device)
    raw = RandomFeatureRegression(directions, offsets, zero, zero).features(samples)
    regression = RandomFeatureRegression(directions, offsets, raw.mean(0), zero)
    return regression.features(samples), regression
