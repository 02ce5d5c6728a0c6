"""The Layer-Peeled Model: the best features and classifier if only their energies are bounded."""

import math
from collections.abc import Iterable

import torch

from lightning_nc.theory.class_groups import group_classes
from lightning_nc.theory.peeled_program import PeeledProgram
from lightning_nc.theory.peeled_solution import LayerPeeledSolution
from lightning_nc.theory.peeled_solver import solve_program


def layer_peeled_model(
    class_counts: Iterable[float], energy_w: float, energy_h: float
) -> LayerPeeledSolution:
    r"""Solve the Layer-Peeled Model for given class sizes; equal sizes lead to neural collapse.

    .. math:: \min_{W, H} \frac1N \sum_k \sum_i \mathrm{CE}(W h_{k,i}, k)
        \quad \text{s.t.} \quad \frac1K \sum_k \lVert w_k \rVert^2 \le E_W, \quad
        \frac1K \sum_k \frac1{n_k} \sum_i \lVert h_{k,i} \rVert^2 \le E_H

    The model is solved by its convex relaxation, a semidefinite program for the Gram matrix of the
    features ``h_1 .. h_K`` (one per class) and the classifier rows ``w_1 .. w_K``. Classes of equal
    size are exchangeable, so the cost depends on the number of distinct counts, not on K. For equal
    counts the minimiser is ``h_k = C w_k = C' m_k``, where m is a simplex ETF,
    ``C = sqrt(E_H/E_W)`` and ``C' = sqrt(E_H)``. Requires
    ``pip install "lightning-neural-collapse[theory]"``.

    Args:
        class_counts: Samples per class ``n_k``, for K >= 2 classes; only their ratios matter. If
            more than 10 counts are distinct, similar ones are replaced by their arithmetic mean
            until at most 10 are left, and ``counts_merged`` of the solution is true.
        energy_w: Bound ``E_W`` on the mean squared norm of the classifier rows.
        energy_h: Bound ``E_H`` on the mean squared norm of the features. Cosines depend only on
            ``E_W E_H``. Products from 1e-6 to 5000 were tested.

    Returns:
        `LayerPeeledSolution`, which is unique. Its duality gap is certified in float64 to be at
        most 1e-8 of the objective.

    Raises:
        ValueError: If there are fewer than two classes, or if a count or an energy is not
            positive and finite.
        ImportError: If cvxpy is not installed.
        RuntimeError: If the solver does not converge, or the gap cannot be certified.

    Example:
        Two classes of equal size have classifier rows +-1 and features +-2, so the logits are +-2
        and the objective is ln(1 + exp(-4)):

        >>> solution = layer_peeled_model([50, 50], energy_w=1, energy_h=4)
        >>> [round(value, 6) for value in (solution.objective, math.log1p(math.exp(-4)))]
        [0.01815, 0.01815]
        >>> solution.cosine_w, solution.norm_h
        (tensor([[-1.]], dtype=torch.float64), tensor([2.], dtype=torch.float64))

    Source:
        Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model:
        minority collapse in imbalanced training", PNAS 118(43).
    """
    groups = group_classes(class_counts)
    s = energy_scale(energy_w, energy_h)
    program = PeeledProgram(groups.sizes, groups.counts, s)
    found = solve_program(program)
    return LayerPeeledSolution(
        energy_w=float(energy_w),
        energy_h=float(energy_h),
        group_of=torch.from_numpy(groups.group_of),
        group_sizes=torch.from_numpy(groups.sizes),
        group_counts=torch.from_numpy(groups.counts),
        counts_merged=groups.merged,
        within=torch.from_numpy(found.within),
        between=torch.from_numpy(found.between),
        objective=found.loss,
        duality_gap=found.gap,
        multiplier=found.multiplier,
    )


def energy_scale(energy_w: float, energy_h: float) -> float:
    """Return ``sqrt(E_W E_H)``; raise unless both energies are positive and finite."""
    for name, energy in (("energy_w", energy_w), ("energy_h", energy_h)):
        if not (math.isfinite(energy) and energy > 0):
            raise ValueError(f"{name} must be positive and finite, got {energy:g}.")
    return math.sqrt(energy_w) * math.sqrt(energy_h)
