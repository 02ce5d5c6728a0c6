"""What the layer-peeled model predicts for the classes and energies that were measured."""

import importlib.util
import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.theory import critical_imbalance, layer_peeled_model


class Prediction(NamedTuple):
    """What the layer-peeled model says of classes and energies.

    Attributes:
        predicted_cos: Mean cosine between classifier rows of minority classes.
        critical_ratio: Imbalance R_0 from which on these rows coincide.
        trouble: Why they are NaN; empty if they are not.
    """

    predicted_cos: float = math.nan
    critical_ratio: float = math.nan
    trouble: str = ""


class Predictions:
    """Predictions, of which the last is kept: the same question is not solved twice."""

    def __init__(self) -> None:
        if importlib.util.find_spec("cvxpy") is None:
            raise ImportError(
                "theory=True solves the layer-peeled model with cvxpy, which is not installed: "
                'pip install "lightning-neural-collapse[theory]".'
            )
        self._question: tuple[object, ...] = ()
        self._answer = Prediction()

    def of(self, n: Tensor, minority: Tensor, energy_w: float, energy_h: float) -> Prediction:
        """Predict from class counts, which classes are rare, and the energies E_W and E_H."""
        question = (tuple(n.tolist()), tuple(minority.tolist()), energy_w, energy_h)
        if question != self._question:
            self._question, self._answer = question, _predict(n, minority, energy_w, energy_h)
        return self._answer


def _predict(n: Tensor, minority: Tensor, energy_w: float, energy_h: float) -> Prediction:
    K, K_B = len(n), len(minority)
    if not 2 <= K_B < K or not bool((n > 0).all()):
        why = (
            "a class has no training samples" if K_B > 1 else "there is no minority of two or more"
        )
        return Prediction(trouble=why)
    try:
        solution = layer_peeled_model(n.tolist(), energy_w, energy_h)
        cosine = solution.mean_cosine_w(minority.tolist())
        R_0 = critical_imbalance(K - K_B, K_B, energy_w, energy_h)
    except (RuntimeError, ValueError) as error:
        return Prediction(trouble=str(error))
    trouble = "" if math.isfinite(cosine) else "minority rows vanish in the model"
    return Prediction(cosine, R_0, trouble)


def predicted_curve(
    K_A: int, K_B: int, energy_w: float, energy_h: float, up_to: float
) -> tuple[list[float], list[float]]:
    """Predicted cosine of minority rows against R, from 1 on; NaN where it is not certified."""
    ratios = torch.logspace(0, math.log10(max(up_to, 10)), 15, dtype=torch.float64).tolist()
    cosines = []
    for R in ratios:
        try:
            solution = layer_peeled_model([R] * K_A + [1] * K_B, energy_w, energy_h)
            cosines.append(solution.mean_cosine_w(range(K_A, K_A + K_B)))
        except RuntimeError:
            cosines.append(math.nan)
    return ratios, cosines
