"""Outputs that do not collapse: maximum margin classifiers of ReLU units on separable classes."""

import math

import torch
from torch import Tensor


def maximum_margin_classifier(x: Tensor, b: float) -> Tensor:
    r"""A classifier of the line by ReLU units; for b from 0 to 1, all have the largest margin.

    .. math:: f_b(x) = \frac{1}{2 + 2 b} \begin{cases} x + b & x > b \\ 2 x & |x| \le b \\
        x - b & x < -b \end{cases}

    For classes ``C_-1`` in (-inf, -1] and ``C_1`` in [1, inf) that contain -1 and 1. No f_b is
    constant on a class that has more than one point.

    It consists of two units, see :func:`maximum_margin_units`, so that its norm
    :math:`\inf \sum_j |a_j| (|w_j| + |b_j|)` is at most 1. The output of a unit differs between the
    points 1 and -1 by at most :math:`|w| + |b|`, hence ``f(1) - f(-1) <= 1`` and a margin of at
    most 1/2 for all functions of norm 1. It is reached with equality for units with
    ``0 <= b <= |w|``: those of all f_b with b <= 1. For b > 1 the margin is 1/(1 + b), below 1/2.

    Args:
        x: Points of the line, any shape.
        b: From 0.

    Returns:
        ``f_b(x)``, float64, in the shape of x.

    Raises:
        ValueError: If b is negative or not finite.

    Example:
        All give the margin 1/2 at 1 and -1, and none is constant beyond:

        >>> x = torch.tensor([-1.0, 1.0, 3.0])
        >>> for b in (0.0, 0.5, 1.0):
        ...     maximum_margin_classifier(x, b)  # x/2; (x +- 1/2) / 3; (x +- 1) / 4
        tensor([-0.5000,  0.5000,  1.5000], dtype=torch.float64)
        tensor([-0.5000,  0.5000,  1.1667], dtype=torch.float64)
        tensor([-0.5000,  0.5000,  1.0000], dtype=torch.float64)

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145; in the limit of infinite width
        gradient flow tends to a maximum margin classifier (Chizat & Bach 2020).
    """
    a, w, offset = maximum_margin_units(b).mT
    return torch.relu(x.double()[..., None] * w + offset) @ a


def maximum_margin_units(b: float) -> Tensor:
    r"""The two ReLU units of f_b, whose norm is 1.

    .. math:: f_b(x) = \frac{\sigma(x + b) - \sigma(-x + b)}{2 + 2 b}, \qquad
        \sum_j |a_j| (|w_j| + |b_j|) = 2 \cdot \frac{1 + b}{2 + 2 b} = 1

    Args:
        b: From 0.

    Returns:
        A row ``(a_j, w_j, b_j)`` for each unit ``a sigma(w x + b)``, float64, shape ``(2, 3)``.

    Raises:
        ValueError: If b is negative or not finite.

    Example:
        >>> maximum_margin_units(1.0)
        tensor([[ 0.2500,  1.0000,  1.0000],
                [-0.2500, -1.0000,  1.0000]], dtype=torch.float64)

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    if not 0 <= b < math.inf:
        raise ValueError(f"The offset b must be 0 or more and finite, got {b}.")
    a = 1 / (2 + 2 * b)
    return torch.tensor([[a, 1, b], [-a, -1, b]], dtype=torch.float64)
