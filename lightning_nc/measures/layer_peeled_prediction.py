"""Predictions of the layer-peeled model for the measured class counts and energies."""

import importlib.util
import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.theory import critical_imbalance, layer_peeled_model


class Prediction(NamedTuple):
    """A prediction of the layer-peeled model.

    Attributes:
        predicted_cos: Mean cosine between classifier rows of minority classes.
        critical_ratio: Imbalance R_0 at and above which these rows coincide.
        trouble: Why both are NaN; empty if they are not.
    """

    predicted_cos: float = math.nan
    critical_ratio: float = math.nan
    trouble: str = ""


class Predictions:
    """Predictions of the layer-peeled model; the last one is kept, so that it is not solved twice.

    Raises:
        ImportError: If cvxpy is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("cvxpy") is None:
            raise ImportError(
                "theory=True solves the layer-peeled model with cvxpy, which is not installed. Run "
                'pip install "lightning-neural-collapse[theory]".'
            )
        self._question: tuple[object, ...] = ()
        self._answer = Prediction()

    def of(self, n: Tensor, minority: Tensor, energy_w: float, energy_h: float) -> Prediction:
        """Predict the cosine of minority rows and the critical imbalance.

        Args:
            n: Training samples per class, shape ``(K,)``.
            minority: Indices of the minority classes, shape ``(K_B,)``.
            energy_w: Mean squared norm E_W of the classifier rows.
            energy_h: Mean squared norm E_H of the last-layer features.
        """
        question = (tuple(n.tolist()), tuple(minority.tolist()), energy_w, energy_h)
        if question != self._question:
            self._question, self._answer = question, _predict(n, minority, energy_w, energy_h)
        return self._answer


def _predict(n: Tensor, minority: Tensor, energy_w: float, energy_h: float) -> Prediction:
    K, K_B = len(n), len(minority)
    if not 2 <= K_B < K or not bool((n > 0).all()):
        why = (
            "a class has no training samples"
            if K_B > 1
            else "there are fewer than two minority classes"
        )
        return Prediction(trouble=why)
    try:
        solution = layer_peeled_model(n.tolist(), energy_w, energy_h)
        cosine = solution.mean_cosine_w(minority.tolist())
        R_0 = critical_imbalance(K - K_B, K_B, energy_w, energy_h)
    except (RuntimeError, ValueError) as error:
        return Prediction(trouble=str(error))
    trouble = "" if math.isfinite(cosine) else "the minority rows are zero in the model"
    return Prediction(cosine, R_0, trouble)


def predicted_curve(
    K_A: int, K_B: int, energy_w: float, energy_h: float, up_to: float
) -> tuple[list[float], list[float]]:
    """The predicted cosine of minority rows against the imbalance R.

    Args:
        K_A: Number of majority classes.
        K_B: Number of minority classes.
        energy_w: Mean squared norm E_W of the classifier rows.
        energy_h: Mean squared norm E_H of the last-layer features.
        up_to: Largest R, at least 10.

    Returns:
        Values of R from 1 on, and the cosines; NaN where the solution is not certified.
    """
    ratios = torch.logspace(0, math.log10(max(up_to, 10)), 15, dtype=torch.float64).tolist()
    cosines = []
    for R in ratios:
        try:
            solution = layer_peeled_model([R] * K_A + [1] * K_B, energy_w, energy_h)
            cosines.append(solution.mean_cosine_w(range(K_A, K_A + K_B)))
        except RuntimeError:
            cosines.append(math.nan)
    return ratios, cosines
