"""Minority Collapse: the imbalance at which the classifier rows of minority classes merge."""

import math

import numpy as np

from lightning_nc.arguments import require_whole_number
from lightning_nc.theory.layer_peeled import energy_scale
from lightning_nc.theory.peeled_program import PeeledProgram
from lightning_nc.theory.peeled_solver import solve_program

LARGEST_IMBALANCE = 1e8
_PRECISION = 1e-6  # in ln R


def critical_imbalance(
    num_majority: int, num_minority: int, energy_w: float, energy_h: float
) -> float:
    r"""The smallest imbalance R_0 at which the classifier rows of all minority classes coincide.

    ``K_A`` majority classes have ``n_A`` samples each, ``K_B`` minority classes have ``n_B`` each,
    and ``R = n_A / n_B``. In the Layer-Peeled Model the minority classes have merged (mean cosine
    1) if and only if

    .. math:: \frac{n_B}{N} \le \frac2K \sqrt{\lambda_H \lambda_W}

    with the multipliers lambda_H and lambda_W of the two energy bounds. R_0 is found by bisection
    in ln R on this criterion. Requires ``pip install "lightning-neural-collapse[theory]"``.

    Args:
        num_majority: Number of majority classes ``K_A``, 1 or more.
        num_minority: Number of minority classes ``K_B``, 2 or more: a single class has no other to
            merge with.
        energy_w: Bound ``E_W`` on the mean squared norm of the classifier rows.
        energy_h: Bound ``E_H`` on the mean squared norm of the features. Only ``E_W E_H`` matters.

    Returns:
        ``R_0 >= 1`` to a relative precision of 1e-6; infinite if the minority classes have not
        merged at R = 1e8.

    Raises:
        ValueError: If there are too few classes, or an energy is not positive and finite.
        ImportError: If cvxpy is not installed.
        RuntimeError: If the solver does not converge, or the gap cannot be certified.

    Example:
        >>> round(critical_imbalance(5, 5, energy_w=1, energy_h=5), 2)
        12.19

    Source:
        Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model:
        minority collapse in imbalanced training", PNAS 118(43).
    """
    num_majority = require_whole_number("num_majority", num_majority, None)
    num_minority = require_whole_number("num_minority", num_minority, None)
    if num_majority < 1 or num_minority < 2:
        raise ValueError(
            "Minority Collapse needs two or more minority classes and at least one majority class, "
            f"got {num_minority} and {num_majority}."
        )
    s = energy_scale(energy_w, energy_h)
    sizes = np.array([num_majority, num_minority])

    def merged(log_R: float) -> bool:
        """Whether the minority classes have merged at this imbalance."""
        R = math.exp(log_R)
        multiplier = solve_program(PeeledProgram(sizes, np.array([R, 1.0]), s)).multiplier
        return 1 / (num_majority * R + num_minority) <= multiplier

    low, high, last = 0.0, 1.0, math.log(LARGEST_IMBALANCE)
    while not merged(high):
        if high == last:
            return math.inf
        low, high = high, min(2 * high, last)
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if merged(middle) else (middle, high)
    return math.exp(high)
