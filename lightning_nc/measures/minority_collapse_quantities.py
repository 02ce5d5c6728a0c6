"""The quantities of minority collapse, one row each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.cosines import centred, group_cosine
from lightning_nc.functional.minority_collapse import (
    classifier_energy,
    feature_energy_of,
    imbalance_ratio,
)
from lightning_nc.functional.powers_of_two import scaled
from lightning_nc.measures.layer_peeled_prediction import Prediction
from lightning_nc.measures.quantity import Curve, Panel, Quantity
from lightning_nc.passes.request import ClassifierGeometry

_COSINE = Panel(
    "Cosine of minority classes",
    "At 1 the classifier rows of minority classes have merged: these classes are not told apart. "
    "With K balanced classes the cosine is -1/(K-1). The predicted cosine is that of the "
    "layer-peeled model, if requested (Fang et al., PNAS 2021).",
    references=(("merged", 1.0),),
)
_AGAINST = Panel(
    "Minority against majority classes",
    "Mean accuracy over minority classes on the probe, and the mean norm of minority rows divided "
    "by that of majority rows; both are ideally 1.",
    references=(("ideal", 1.0),),
)
_IMBALANCE = Panel(
    "Imbalance R",
    "Mean training samples of majority classes divided by those of minority classes, and the "
    "critical R above which minority rows coincide in the layer-peeled model.",
    logarithmic=True,
)


class Minority(NamedTuple):
    """What the values of the rows are computed from.

    Attributes:
        last: The classifier, and the geometry of its input.
        n: Training samples per class, shape ``(K,)``; None if unknown.
        is_minority: True for minority classes, shape ``(K,)``; all False if there are none, or they
            are unknown.
        prediction: Prediction of the layer-peeled model; None if not requested.
    """

    last: ClassifierGeometry
    n: Tensor | None
    is_minority: Tensor
    prediction: Prediction | None = None

    @property
    def W(self) -> Tensor:
        """Classifier rows, shape ``(K, d)``."""
        assert self.last.weight is not None
        return self.last.weight

    @property
    def class_accuracy(self) -> Tensor:
        """Share of samples of each class that the classifier gets right, shape ``(K,)``."""
        assert self.last.class_accuracy is not None
        return self.last.class_accuracy

    @property
    def M(self) -> Tensor:
        """Centred class means in units of their geometry's scale, shape ``(K, d)``."""
        return centred(self.last.features.means)

    @property
    def B(self) -> Tensor:
        """Indices of the minority classes."""
        return self._where(self.is_minority)

    @property
    def A(self) -> Tensor:
        """Indices of the majority classes."""
        return self._where(~self.is_minority)

    @property
    def ratio(self) -> Tensor:
        """The imbalance R; NaN if class sizes are unknown."""
        if self.n is None:
            return self.W.new_tensor(torch.nan)
        return imbalance_ratio(self.n, self.is_minority)

    def _where(self, mask: Tensor) -> Tensor:
        return mask.nonzero().flatten().to(self.W.device)


def _of_minority(value: Callable[[Minority], Any]) -> Callable[[Minority], Any]:
    """A value that is not logged where no classes are known to be a minority."""
    return lambda found: value(found) if len(found.B) else None


def _norm_ratio(found: Minority) -> Tensor:
    norms = torch.linalg.vector_norm(scaled(found.W), dim=1)
    return norms[found.B].mean() / norms[found.A].mean()


QUANTITIES = (
    # cosines have no best value: K is not logged, and values below -1/(K-1) are no better
    Quantity(
        "cos_weights",
        "cos(w_i, w_j)",
        "Cosine of minority rows",
        "Mean cosine between the classifier rows of minority classes; at 1 these have merged.",
        ideal="-1/(K-1)",
        worry="Above 0.95, the classifier hardly tells the minority classes apart.",
        worry_above=0.95,
        chart=Curve(_COSINE, "rows"),
        headline=True,
        function="functional.group_cosine",
        of=_of_minority(lambda found: group_cosine(found.W, found.B)),
    ),
    Quantity(
        "predicted_cos",
        "",
        "Predicted cosine",
        "The layer-peeled model's prediction of cos_weights, at the measured class counts and "
        "energies.",
        worry="If the measured cosine is far above it: something besides class sizes draws the "
        "classes together.",
        caveat="Logged only with theory=True. The model has no BatchNorm, bias or weight decay.",
        chart=Curve(_COSINE, "predicted", dashed=True),
        function="theory.layer_peeled_model",
        of=lambda found: found.prediction and found.prediction.predicted_cos,
    ),
    Quantity(
        "cos_means",
        "cos(m_i, m_j)",
        "Cosine of minority means",
        "Mean cosine between the centred class means of minority classes.",
        ideal="-1/(K-1)",
        worry="If it approaches 1: the features themselves do not tell the minority classes apart.",
        worry_above=0.95,
        chart=Curve(_COSINE, "class means", compared=False),
        function="functional.group_cosine",
        of=_of_minority(lambda found: group_cosine(found.M, found.B)),
    ),
    Quantity(
        "cos_majority_weights",
        "",
        "Cosine of majority rows",
        "Mean cosine between the classifier rows of majority classes, for comparison.",
        ideal="-1/(K-1)",
        worry="If it rises as well: the problem is not limited to minority classes.",
        chart=Curve(_COSINE, "majority rows", compared=False),
        function="functional.group_cosine",
        of=_of_minority(lambda found: group_cosine(found.W, found.A)),
    ),
    Quantity(
        "norm_ratio",
        "",
        "Norm ratio",
        "Mean norm of the rows of minority classes divided by that of majority classes.",
        ideal="1",
        worry="Far below 1, the classifier hardly ever predicts a minority class.",
        best="near one",
        chart=Curve(_AGAINST, "norm ratio", compared=False),
        of=_of_minority(_norm_ratio),
    ),
    Quantity(
        "minority_accuracy",
        "",
        "Accuracy on minority classes",
        "Mean accuracy over the minority classes, on the probe.",
        ideal="1",
        worry="If it lags far behind the accuracy on all classes.",
        best="high",
        chart=Curve(_AGAINST, "accuracy on minority classes"),
        headline=True,
        of=_of_minority(lambda found: found.class_accuracy[found.B].mean()),
    ),
    Quantity(
        "imbalance_ratio",
        "R",
        "Imbalance R",
        "Mean training samples of majority classes divided by those of minority classes, as "
        "drawn in training.",
        worry="Above the critical R, minority rows coincide in the model: oversample minority "
        "classes.",
        chart=Curve(_IMBALANCE, "R"),
        function="functional.imbalance_ratio",
        of=_of_minority(lambda found: found.ratio),
    ),
    Quantity(
        "critical_ratio",
        "R_0",
        "Critical R",
        "The imbalance above which all minority rows coincide in the layer-peeled model.",
        worry="If the imbalance R is above it.",
        caveat="Infinite if they do not coincide up to R = 1e8. Logged only with theory=True.",
        chart=Curve(_IMBALANCE, "critical R", dashed=True),
        function="theory.critical_imbalance",
        of=lambda found: found.prediction and found.prediction.critical_ratio,
    ),
    Quantity(
        "energy_weights",
        "E_W",
        "Energy of rows",
        "Mean squared norm of the classifier rows, E_W in the layer-peeled model.",
        worry="If it grows without bound: weight decay does not limit the classifier.",
        function="functional.classifier_energy",
        of=lambda found: classifier_energy(found.W),
    ),
    Quantity(
        "energy_features",
        "E_H",
        "Energy of features",
        "Mean squared norm of last-layer features, E_H in the layer-peeled model.",
        worry="If it grows without bound: nothing limits the features.",
        of=lambda found: feature_energy_of(found.last.features),
    ),
    Quantity(
        "energy_features_centered",
        "",
        "Centred energy",
        "Mean squared norm of last-layer features about the mean of the class means.",
        worry="If it is far below energy_features: the features share a large common part, which "
        "the model does not have.",
        of=lambda found: feature_energy_of(found.last.features, centred=True),
    ),
)
