"""Logistic regression: losses, gradients, Hessian, and the minimiser by Newton's method."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LARGEST_NUMBER_OF_STEPS = 200


def logistic_losses(features: Tensor, labels: Tensor, w: Tensor) -> Tensor:
    r"""The loss on each sample, in nats; 0 if it is correctly predicted with certainty.

    .. math:: l(w, (x, y)) = \ln(1 + \exp(w^\top x)) - y \, w^\top x

    Args:
        features: Samples x, shape ``(n, p)``. There is no bias: append a column of ones.
        labels: Labels y, 0 or 1, shape ``(n,)``.
        w: Weights, shape ``(p,)``.

    Returns:
        Losses >= 0, float64, shape ``(n,)``.

    Raises:
        ValueError: If shapes do not match, or a label is neither 0 nor 1.

    Example:
        ln(1 + 1), and ln(1 + 3) - ln 3:

        >>> x, y = torch.tensor([[0.0], [math.log(3)]]), torch.tensor([0, 1])
        >>> logistic_losses(x, y, torch.ones(1))  # ln 2, ln(4/3)
        tensor([0.6931, 0.2877], dtype=torch.float64)
    """
    x, y = _samples(features, labels, w)
    # the same loss without cancellation: ln(1 + exp(-f)) for y = 1, ln(1 + exp(f)) for y = 0
    return -logsigmoid((2 * y - 1) * (x @ w.double()))


def logistic_gradients(features: Tensor, labels: Tensor, w: Tensor) -> Tensor:
    r"""The gradient of the loss on each sample with respect to the weights.

    .. math:: \nabla l = (\sigma(w^\top x) - y) \, x, \qquad \sigma(f) = 1 / (1 + \exp(-f))

    Args:
        features: Samples x, shape ``(n, p)``.
        labels: Labels y, 0 or 1, shape ``(n,)``.
        w: Weights, shape ``(p,)``.

    Returns:
        Gradients, float64, shape ``(n, p)``; 0 where the prediction is correct with certainty.

    Raises:
        ValueError: If shapes do not match, or a label is neither 0 nor 1.

    Example:
        >>> x, y = torch.tensor([[2.0, 4.0]]), torch.tensor([1])
        >>> logistic_gradients(x, y, torch.zeros(2))  # (1/2 - 1) x
        tensor([[-1., -2.]], dtype=torch.float64)
    """
    x, y = _samples(features, labels, w)
    return ((x @ w.double()).sigmoid() - y)[:, None] * x


def logistic_hessian(
    features: Tensor, w: Tensor, regularization: float, present: Tensor | None = None
) -> Tensor:
    r"""The Hessian of the regularised empirical risk, which does not depend on the labels.

    .. math:: H = \frac1m \sum_i s_i \, \sigma(f_i) (1 - \sigma(f_i)) \, x_i x_i^\top + \mu I,
        \qquad f_i = w^\top x_i

    Args:
        features: Samples x_i, shape ``(m, p)``.
        w: Weights, shape ``(p,)``.
        regularization: Strength of the regularisation mu.
        present: Sample weights s_i, shape ``(m,)``; all 1 by default.

    Returns:
        H, symmetric with eigenvalues of mu or more, float64, shape ``(p, p)``.

    Example:
        >>> logistic_hessian(torch.tensor([[2.0], [0.0]]), torch.zeros(1), 0.5)  # (1/4) 4 / 2 + 0.5
        tensor([[1.]], dtype=torch.float64)
    """
    x, mu = features.double(), regularization
    sigma = (x @ w.double()).sigmoid()
    curvature = sigma * (1 - sigma) if present is None else present * sigma * (1 - sigma)
    identity = torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    return x.mT @ (curvature[:, None] * x) / len(x) + mu * identity


def logistic_regression(
    features: Tensor, labels: Tensor, regularization: float, present: Tensor | None = None
) -> Tensor:
    r"""Minimise the regularised empirical risk by Newton's method, up to rounding error.

    .. math:: \min_w \frac1m \sum_i s_i \, l(w, (x_i, y_i)) + \frac\mu2 \lVert w \rVert^2

    Args:
        features: Samples x_i, shape ``(m, p)``. There is no bias: append a column of ones, whose
            weight is also regularised.
        labels: Labels y_i, 0 or 1, shape ``(m,)``.
        regularization: Strength of the regularisation mu, positive, so that there is exactly one
            minimum.
        present: Sample weights s_i >= 0, shape ``(m,)``; all 1 by default. Zero leaves a sample
            out; the sum is still divided by m.

    Returns:
        The weights w, float64, shape ``(p,)``.

    Raises:
        ValueError: If shapes do not match, features are not finite, a label is neither 0 nor 1, a
            weight of a sample is negative, or the regularisation is not positive and finite.
        RuntimeError: If Newton's method does not converge.

    Example:
        At the minimum, 0.1 w = 1 / (1 + exp(w)):

        >>> x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
        >>> w = logistic_regression(x, y, regularization=0.1)
        >>> w, 10 / (1 + w.exp())
        (tensor([1.6335], dtype=torch.float64), tensor([1.6335], dtype=torch.float64))
    """
    x, y = _samples(features, labels)
    m, p = x.shape
    mu = regularization
    if m == 0 or not 0 < mu < math.inf or not bool(x.isfinite().all()):
        raise ValueError(
            "Need m >= 1 samples with finite features and a positive, finite regularisation; got "
            f"features of shape {tuple(x.shape)} with {int((~x.isfinite()).sum())} non-finite "
            f"value(s), and regularisation {mu}."
        )
    s = torch.ones_like(y) if present is None else present.double()
    if s.shape != y.shape or not bool((s >= 0).all()) or not bool(s.isfinite().all()):
        raise ValueError(
            f"Need a finite weight >= 0 for each of {m} samples, got shape {tuple(s.shape)}"
            + (f" with a lowest weight of {float(s.min())}." if s.numel() else ".")
        )

    def risk(w: Tensor) -> float:
        return float((s * logistic_losses(x, y, w)).sum() / m + mu / 2 * w @ w)

    w, last = torch.zeros(p, dtype=torch.float64, device=x.device), math.inf
    for _ in range(LARGEST_NUMBER_OF_STEPS):
        gradient = (s[:, None] * logistic_gradients(x, y, w)).sum(0) / m + mu * w
        direction = torch.linalg.solve(logistic_hessian(x, w, mu, s), gradient)
        decrement, now = float(gradient @ direction), risk(w)
        rounding = 1e-15 * now
        # convergence is quadratic until it reaches rounding error
        if decrement <= rounding and decrement >= last / 4:
            return w
        step = 1.0
        while risk(w - step * direction) > now - step * decrement / 4 + rounding:
            step /= 2
        w, last = w - step * direction, decrement
    raise RuntimeError(
        f"Newton's method did not converge in {LARGEST_NUMBER_OF_STEPS} steps: rescale the "
        f"features to a common scale, or use a regularisation above {mu}."
    )


def _samples(features: Tensor, labels: Tensor, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return features and labels in float64; raise if shapes or labels are invalid."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            "Features must have shape (n, p) and labels shape (n,), got "
            f"{tuple(features.shape)} and {tuple(labels.shape)}."
        )
    if w is not None and w.shape != features.shape[1:]:
        raise ValueError(
            f"Need a weight for each of {features.shape[1]} features, got shape {tuple(w.shape)}."
        )
    astray = labels[(labels != 0) & (labels != 1)]
    if len(astray):
        raise ValueError(f"Labels must be 0 or 1, got {astray[0].item()}.")
    return features.double(), labels.double()
