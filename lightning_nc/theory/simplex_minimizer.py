"""The classifier of least risk if features and classifier have bounded norms: a simplex."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.arguments import require_whole_number
from lightning_nc.theory.jensen import cross_entropy_risk


class SimplexMinimizer(NamedTuple):
    """Where projected gradient steps end.

    Attributes:
        values: ``y_i``, the value of f on class i, shape ``(K, m)``.
        weight: A, shape ``(K, m)``.
        risk: The risk of ``h = A f``, in nats.
    """

    values: Tensor
    weight: Tensor
    risk: Tensor


def simplex_minimizer(
    num_classes: int,
    dimension: int,
    radius: float = 1.0,
    probabilities: Tensor | None = None,
    steps: int = 3000,
    rate: float = 1.0,
    seed: int = 0,
) -> SimplexMinimizer:
    r"""Minimise the risk over ``h = A f`` with bounded f and A, by projected gradient steps.

    .. math:: \min_{A, f} \sum_i P(C_i) \, \mathrm{CE}(A y_i, i) \quad \text{s.t.} \quad
        \lVert y_i \rVert_2 \le R, \quad \lVert A \rVert_{2 \to 2} \le 1

    By Jensen's inequality f may be taken constant on classes, ``f = y_i`` on C_i. Then ``A y_i`` is
    in the ball of radius R, where the minimiser of each class is a vertex of a simplex (see
    :func:`~lightning_nc.theory.lp_ball.lp_ball_minimizer` with p = 2). All vertices are reached at
    once if the y_i form a regular simplex with its centre at the origin and A is an isometric
    embedding of their span, which takes m >= K - 1 dimensions. The least risk is
    ``ln(1 + (K-1) exp(-R sqrt(K/(K-1))))``, whatever the probabilities of the classes: unlike in
    the Layer-Peeled Model, each norm is bounded, not their mean, and no minority collapses.

    Row i of A is parallel to ``y_i`` in ``span{y_i}``. Where m > K - 1, what A does to the
    orthogonal complement makes no difference to h, so that its rows keep a part there from where
    the steps began.

    Each step moves y / R and A against their gradient, scaled to norm 1 and to a length that falls
    from ``rate`` as ``1 / sqrt(step)`` (it is what remains to be gained that shrinks with R, not
    the way), then takes y_i back to the ball and the singular values of A to at most 1.

    Args:
        num_classes: K, 2 or more.
        dimension: m, 1 or more. Below K - 1 there is no room for a simplex.
        radius: R, positive, and at most ``700 sqrt((K-1)/K)``: beyond, float64 has no such risk.
        probabilities: ``P(C_i)`` >= 0, shape ``(K,)``; equal by default.
        steps: Number of steps, 1 or more.
        rate: Length of the first step, positive and finite.
        seed: Seed of the start, which is normally distributed.

    Returns:
        `SimplexMinimizer`, float64.

    Raises:
        ValueError: If sizes, radius, rate or probabilities are not as described.

    Example:
        Two classes on a line end at its ends, where h = (r, -r) with r = sqrt(1/2) and the loss is
        ln(1 + exp(-2 r)):

        >>> values, weight, risk = simplex_minimizer(num_classes=2, dimension=1, steps=100)
        >>> values.abs(), risk
        (tensor([[1.],
                [1.]], dtype=torch.float64), tensor(0.2176, dtype=torch.float64))

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    num_classes = require_whole_number("num_classes", num_classes, 2)
    dimension = require_whole_number("dimension", dimension, 1)
    steps = require_whole_number("steps", steps, 1)
    if not 0 < radius < math.inf or not 0 < rate < math.inf:
        raise ValueError(f"Radius and rate must be positive and finite, got {radius} and {rate}.")
    most = 700 * math.sqrt(1 - 1 / num_classes)  # the least risk is about exp(-700)
    if radius > most:
        raise ValueError(
            f"Radius must be at most {most:.4g} for {num_classes} classes, got {radius}: the least "
            "risk would be too small for float64."
        )
    generator = torch.Generator().manual_seed(seed)
    u, A = torch.randn(2, num_classes, dimension, generator=generator, dtype=torch.float64)
    labels = torch.arange(num_classes)
    u, A = _to_unit_ball(u), _to_contraction(A)
    for step in range(steps):
        u.requires_grad_(), A.requires_grad_()
        risk = cross_entropy_risk(radius * u @ A.mT, labels, probabilities)
        gradient = torch.stack(torch.autograd.grad(risk, (u, A)))
        gradient = gradient / gradient.abs().max()  # whose squares may be too small for numbers
        along_u, along_A = rate / (step + 1) ** 0.5 * gradient / gradient.norm()
        u, A = _to_unit_ball(u.detach() - along_u), _to_contraction(A.detach() - along_A)
    y = radius * u
    return SimplexMinimizer(y, A, cross_entropy_risk(y @ A.mT, labels, probabilities))


def _to_unit_ball(u: Tensor) -> Tensor:
    """The nearest rows with a norm of at most 1."""
    return u / u.norm(dim=1, keepdim=True).clamp(min=1)


def _to_contraction(A: Tensor) -> Tensor:
    """The nearest matrix with singular values of at most 1."""
    U, s, Vh = torch.linalg.svd(A, full_matrices=False)
    return U @ (s.clamp(max=1)[:, None] * Vh)
