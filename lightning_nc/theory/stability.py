"""Locally elastic stability: how much leaving out one sample changes the loss on another."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.theory.logistic import logistic_losses, logistic_regression


class Stability(NamedTuple):
    """How much leaving out a training sample changes a loss, on average and at worst.

    Attributes:
        locally_elastic: sup over z of the mean over z_j of beta(z_j, z).
        uniform: sup over z and z_j of beta(z_j, z).
        ratio: ``locally_elastic / uniform``, from 0 to 1; NaN if both are 0.
    """

    locally_elastic: Tensor
    uniform: Tensor
    ratio: Tensor


def locally_elastic_stability(beta: Tensor) -> Stability:
    r"""The locally elastic and the uniform stability, which bound the generalisation gap.

    .. math:: \sup_z \frac1m \sum_j \beta(z_j, z), \qquad \sup_{z_j, z} \beta(z_j, z)

    The smaller their ratio, the fewer losses a training sample affects, and the looser the bound by
    uniform stability.

    Args:
        beta: ``|l(A_S, z) - l(A_{S\j}, z)|`` for m training samples z_j and n samples z, shape
            ``(m, n)``. The suprema are over these samples.

    Returns:
        `Stability`, float64 scalars in the units of the loss; the ratio is dimensionless. NaN if an
        entry is NaN.

    Raises:
        ValueError: If ``beta`` is not a matrix, is empty, or has negative entries.

    Example:
        Each sample affects only the loss on itself:

        >>> stability = locally_elastic_stability(torch.eye(4))
        >>> stability.locally_elastic, stability.uniform
        (tensor(0.2500, dtype=torch.float64), tensor(1., dtype=torch.float64))

    Source:
        Deng, He & Su (2021), "Toward better generalization bounds with locally elastic stability",
        ICML.
    """
    if beta.ndim != 2 or beta.numel() == 0:
        raise ValueError(
            "beta must have shape (m, n), for m >= 1 training samples and n >= 1 samples, got "
            f"{tuple(beta.shape)}."
        )
    if bool((beta < 0).any()):
        raise ValueError(f"The entries of beta must be non-negative, got {float(beta.min())}.")
    beta = beta.double()
    locally_elastic, uniform = beta.mean(0).max(), beta.max()
    return Stability(locally_elastic, uniform, locally_elastic / uniform)


def influence_stability(gradients: Tensor, hessian: Tensor, test_gradients: Tensor) -> Tensor:
    r"""How much leaving out each training sample changes each loss, to first order in 1/m.

    .. math:: \beta(z_i, z) \approx \frac1m \left| \nabla l(z)^\top H^{-1} \nabla l(z_i) \right|

    where H is the Hessian of the regularised empirical risk
    :math:`R(w) = \frac1m \sum_i l(w, z_i) + \frac\mu2 \lVert w \rVert^2` at its minimum A_S. The
    sum without z_i is still divided by m; with m - 1, the gradient of z_i would have to be centred
    on the mean of all gradients. The main neglected term is the leverage
    :math:`h_i = \frac1m \operatorname{Tr}(H^{-1} \nabla^2 l(z_i))`, which increases beta by a
    factor of 1/(1 - h_i). It is small for many samples or strong regularisation.

    Args:
        gradients: Gradients at A_S of the losses l(w, z_i), without the regularisation, shape
            ``(m, p)``.
        hessian: H, with the regularisation, symmetric and positive definite, shape ``(p, p)``.
        test_gradients: Gradients at A_S of the losses l(w, z), shape ``(n, p)``.

    Returns:
        beta >= 0, in units of the loss, float64, shape ``(m, n)``.

    Raises:
        ValueError: If shapes do not match, there are no training samples, or H is not symmetric and
            positive definite.

    Example:
        The mean of (w - z_i)^2 / 2 over z = -1, 0, 4 is smallest at their mean, w = 1. There H = 1,
        and the gradients w - z_i are 2, 1 and -3:

        >>> g = torch.tensor([[2.0], [1.0], [-3.0]])
        >>> influence_stability(g, torch.eye(1), g) * 3
        tensor([[4., 2., 6.],
                [2., 1., 3.],
                [6., 3., 9.]], dtype=torch.float64)

    Source:
        Deng, He & Su (2021), "Toward better generalization bounds with locally elastic stability",
        ICML; Koh & Liang (2017), "Understanding black-box predictions via influence functions",
        ICML.
    """
    m, p = gradients.shape if gradients.ndim == 2 else (0, 0)
    if m == 0 or hessian.shape != (p, p) or test_gradients.shape[1:] != (p,):
        raise ValueError(
            "Gradients must have shape (m, p) with m >= 1, the Hessian (p, p) and test gradients "
            f"(n, p), got {tuple(gradients.shape)}, {tuple(hessian.shape)} and "
            f"{tuple(test_gradients.shape)}."
        )
    H = hessian.double()
    if not float((H - H.mT).abs().max()) <= 1e-6 * float(H.abs().max()):
        raise ValueError(
            "The Hessian must be finite and symmetric, but it differs from its transpose by "
            f"{float((H - H.mT).abs().max()):.3g}."
        )
    factor, failed = torch.linalg.cholesky_ex((H + H.mT) / 2)
    if bool(failed):
        lowest = float(torch.linalg.eigvalsh(H)[0])
        raise ValueError(
            f"The Hessian must be positive definite, but its lowest eigenvalue is {lowest:.3g}: "
            "regularise the risk, and compute the Hessian at its minimum."
        )
    towards = torch.cholesky_solve(test_gradients.double().mT, factor)  # H^-1 grad l(z)
    return (gradients.double() @ towards).abs() / m


def leave_one_out_stability(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    regularization: float,
) -> Tensor:
    r"""How much leaving out each training sample changes each loss, by training without it.

    .. math:: \beta(z_i, z) = \left| l(A_S, z) - l(A_{S \setminus i}, z) \right|

    for logistic regression, see :func:`~lightning_nc.theory.logistic.logistic_regression`. The
    sum of the losses without z_i is still divided by m.

    Args:
        features: Features of the training samples z_i, shape ``(m, p)``.
        labels: Labels of the training samples, 0 or 1, shape ``(m,)``.
        test_features: Features of the samples z, shape ``(n, p)``.
        test_labels: Labels of the samples z, 0 or 1, shape ``(n,)``.
        regularization: Strength of the regularisation mu, positive.

    Returns:
        beta >= 0, in nats, float64, shape ``(m, n)``.

    Raises:
        ValueError: If shapes, labels or regularisation are not as described.
        RuntimeError: If Newton's method does not converge.

    Example:
        Two opposite samples on a line pull w to the solution of 0.1 w = 1 / (1 + exp(w)), which is
        1.6335. One alone pulls half as strongly, to the solution of 0.2 w = 1 / (1 + exp(w)), which
        is 1.1775. The loss on a sample, ln(1 + exp(-w)), rises from 0.1784 to 0.2685:

        >>> x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
        >>> leave_one_out_stability(x, y, x[:1], y[:1], regularization=0.1)
        tensor([[0.0902],
                [0.0902]], dtype=torch.float64)

    Source:
        Deng, He & Su (2021), "Toward better generalization bounds with locally elastic stability",
        ICML.
    """
    A_S = logistic_regression(features, labels, regularization)
    losses = logistic_losses(test_features, test_labels, A_S)
    beta = torch.empty(len(features), len(losses), dtype=torch.float64, device=losses.device)
    for i, row in enumerate(beta):
        present = torch.ones(len(features), dtype=torch.float64, device=losses.device)
        present[i] = 0
        A_without_i = logistic_regression(features, labels, regularization, present)
        row[:] = (losses - logistic_losses(test_features, test_labels, A_without_i)).abs()
    return beta
