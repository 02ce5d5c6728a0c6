"""Minority Collapse: from which imbalance on the model no longer tells minority classes apart."""

import math

import numpy as np

from lightning_nc.theory.layer_peeled import energy_scale
from lightning_nc.theory.peeled_program import PeeledProgram
from lightning_nc.theory.peeled_solver import solve_program

LARGEST_IMBALANCE = 1e8
_PRECISION = 1e-6  # of ln R


def critical_imbalance(
    num_majority: int, num_minority: int, energy_w: float, energy_h: float
) -> float:
    r"""The imbalance R_0 from which on the classifier's minority rows are one and the same.

    ``K_A`` majority classes have ``n_A`` samples each, ``K_B`` minority classes ``n_B``, and
    ``R = n_A / n_B``. In the Layer-Peeled Model the minority has merged, mean cosine 1, exactly
    if

    .. math:: \frac{n_B}{N} \le \frac2K \sqrt{\lambda_H \lambda_W}

    with the multipliers of the two energy bounds; R_0 is found by bisection in ln R on this
    criterion. Needs ``pip install "lightning-neural-collapse[theory]"``.

    Args:
        num_majority: ``K_A``, 1 or more.
        num_minority: ``K_B``, 2 or more: a single class has no other to merge with.
        energy_w: Bound ``E_W`` of the mean squared norm of the classifier's rows.
        energy_h: Bound ``E_H`` of the mean squared norm of the features. Only ``E_W E_H`` matters.

    Returns:
        ``R_0 >= 1`` to a relative precision of 1e-6; infinite if the minority has not merged at
        R = 1e8.

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
    if num_majority < 1 or num_minority < 2:
        raise ValueError(
            "Minority Collapse is of two or more minority classes beside at least one majority "
            f"class; got {num_minority} and {num_majority}."
        )
    s = energy_scale(energy_w, energy_h)
    sizes = np.array([num_majority, num_minority])

    def merged(log_R: float) -> bool:
        """Whether the minority has merged at this imbalance."""
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
