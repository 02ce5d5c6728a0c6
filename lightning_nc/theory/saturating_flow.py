"""Outputs that do not collapse: a class on both sides of another, and units that saturate."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def saturating_flow(
    start: Sequence[float], probabilities: Sequence[float], log_time: float
) -> Tensor:
    r"""Gradient flow of a network of saturating units on three points of the line.

    The classes are ``C_1 = {-1, 1}`` and ``C_-1 = {0}``, with the probabilities p of the points
    -1, 0 and 1. The activation is 0 for z <= 0 and 1 for z >= 1, so that the inner weights of

    .. math:: h(x) = a_1 \sigma(-x) - a_2 \sigma(x + 1) + a_3 \sigma(x)

    do not move, and the outputs are ``h(-1) = a_1``, ``h(0) = -a_2`` and ``h(1) = a_3 - a_2``. The
    gradient flow of the exponential loss
    :math:`p_1 e^{-a_1} + p_2 e^{-a_2} + p_3 e^{a_2 - a_3}` is

    .. math:: \dot a = \left( p_1 e^{-a_1}, \; p_2 e^{-a_2} - p_3 e^{a_2 - a_3}, \;
        p_3 e^{a_2 - a_3} \right)

    Outputs grow as the logarithm of time, in which it is integrated. Requires scipy.

    Args:
        start: ``a(0)``, three numbers from -50 to 50, so that the flow can be integrated.
        probabilities: ``p_1, p_2, p_3``, positive; only their ratios matter in the limit.
        log_time: ``ln(1 + t)`` at the end, 0 or more.

    Returns:
        ``a(t)``, float64, shape ``(3,)``.

    Raises:
        ValueError: If there are not three numbers each, or they are not as described.

    Example:
        ``exp(a_1) = exp(a_1(0)) + p_1 t``, here 1 + t/4 at t = 4:

        >>> a = saturating_flow([0, 0, 0], [0.25, 0.25, 0.5], log_time=math.log(5))
        >>> round(math.exp(a[0]), 6)
        2.0

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    from scipy.integrate import solve_ivp

    p = _three_probabilities(probabilities)
    if len(start) != 3 or not all(abs(a) <= 50 for a in start) or not 0 <= log_time < math.inf:
        raise ValueError(
            "Need three numbers from -50 to 50 to start from and a finite time from 0, got "
            f"{list(start)} and {log_time}."
        )

    def velocity(log_time: float, a: Sequence[float]) -> list[float]:
        first, second, third = (
            rate * math.exp(log_time - output)  # dt = (1 + t) d ln(1 + t)
            for rate, output in zip(p, (a[0], a[1], a[2] - a[1]), strict=True)
        )
        return [first, second - third, third]

    solution = solve_ivp(velocity, (0, log_time), list(start), "Radau", rtol=1e-9, atol=1e-10)
    if not solution.success:
        raise RuntimeError(f"The flow could not be integrated: {solution.message}")
    return torch.tensor(solution.y[:, -1])


def output_gap(a: Tensor) -> Tensor:
    r"""How far apart the outputs within the class are: ``h(1) - h(-1) = a_3 - a_2 - a_1``.

    Args:
        a: Outer weights of the network of :func:`saturating_flow`, shape ``(3,)``.

    Returns:
        A scalar of any sign; 0 if the outputs have collapsed.

    Example:
        >>> output_gap(torch.tensor([1.0, 2.0, 5.0]))
        tensor(2.)
    """
    return a[2] - a[1] - a[0]


def output_gap_limit(probabilities: Sequence[float]) -> float:
    r"""What the gap within the class tends to, wherever the flow starts.

    .. math:: h(1) - h(-1) \to \ln \frac{p_3}{2 p_1}

    With ``e^(a_1) = p_1 t``, ``e^(a_2) = A t`` and ``e^(a_3 - a_2) = B t`` the flow becomes
    ``1 = p_2/A - p_3/B`` and ``1 = 2 p_3/B - p_2/A``, hence ``B = p_3/2`` and ``A = p_2/3``, and
    the gap is ``ln(B/p_1)``. The unit that holds 0 apart from 1 also acts on 0, which halves the
    speed at 1. The outputs collapse only for p_3 = 2 p_1.

    Args:
        probabilities: ``p_1, p_2, p_3`` of the points -1, 0 and 1, positive.

    Returns:
        The limit, of any sign.

    Raises:
        ValueError: If there are not three positive, finite numbers.

    Example:
        >>> output_gap_limit([1 / 3, 1 / 3, 1 / 3])  # -ln 2
        -0.6931471805599453
        >>> a = saturating_flow([0, 0, 0], [1 / 3, 1 / 3, 1 / 3], log_time=25)
        >>> round(float(output_gap(a)), 6)
        -0.693147

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    p_1, _, p_3 = _three_probabilities(probabilities)
    return math.log(p_3 / (2 * p_1))


def _three_probabilities(p: Sequence[float]) -> tuple[float, float, float]:
    if len(p) != 3 or not all(0 < each < math.inf for each in p):
        raise ValueError(f"Need three positive, finite probabilities, got {list(p)}.")
    return float(p[0]), float(p[1]), float(p[2])
