"""The geometry of the last layer as the logged values of `MinorityCollapse`."""

import torch
from torch import Tensor

from lightning_nc.callbacks.geometry_callback import Evaluation
from lightning_nc.callbacks.request import ClassifierGeometry
from lightning_nc.functional.cosines import cosines, group_cosine
from lightning_nc.functional.minority_collapse import (
    classifier_energy,
    feature_energy_of,
    imbalance_ratio,
)
from lightning_nc.functional.neural_collapse import centred


def evaluate_minority(
    classifier: ClassifierGeometry,
    n: Tensor | None,
    minority: Tensor | None,
    probe: str,
    merged_above: float,
) -> Evaluation:
    """The logged values of `MinorityCollapse`.

    Args:
        classifier: Geometry of the last layer.
        n: Training samples per class, shape ``(K,)``, if they are known.
        minority: True for minority classes, shape ``(K,)``, if they are known.
        probe: Name of the probe.
        merged_above: Cosine of rows from which on minority classes count as merged.
    """
    W, M = classifier.weight, centred(classifier.features.means)
    norms_of_weights, norms_of_means = (torch.linalg.vector_norm(v, dim=1) for v in (W, M))
    B = torch.zeros(len(W), dtype=torch.bool) if minority is None else minority
    B, A = B.nonzero().flatten().to(W.device), (~B).nonzero().flatten().to(W.device)
    nan = W.new_tensor(torch.nan)
    scalars = {
        "cos_weights": group_cosine(W, B),
        "cos_means": group_cosine(M, B),
        "cos_majority_weights": group_cosine(W, A) if len(B) else nan,
        "norm_ratio": norms_of_weights[B].mean() / norms_of_weights[A].mean(),
        "imbalance_ratio": nan if n is None or minority is None else imbalance_ratio(n, minority),
        "energy_weights": classifier_energy(W),
        "energy_features": feature_energy_of(classifier.features),
        "energy_features_centered": feature_energy_of(classifier.features, centred=True),
        "minority_accuracy": classifier.class_accuracy[B].mean() if classifier.is_affine else nan,
    }
    values = {f"minority/{probe}/{name}": float(value) for name, value in scalars.items()}
    arrays = {
        "class_counts": torch.full((len(W),), torch.nan) if n is None else n.double(),
        "minority": torch.zeros(len(W)) if minority is None else minority.double(),
        "cosines_of_weights": cosines(W),
        "cosines_of_means": cosines(M),
        "norms_of_weights": norms_of_weights,
        "norms_of_means": norms_of_means,
        "class_accuracy": classifier.class_accuracy,
    }
    cosine = values[f"minority/{probe}/cos_weights"]
    alerts = {}
    if cosine > merged_above:
        alerts["minority classes have merged"] = (
            f"the classifier's rows for {len(B)} minority classes have a mean cosine of "
            f"{cosine:.3f} on '{probe}': it hardly tells these classes apart."
        )
    notes = {} if minority is None else _notes(values, B)
    if not classifier.is_affine:
        notes["accuracy"] = (
            "minority_accuracy is undefined (NaN): the head does not compute W h + b from its "
            "weight and bias."
        )
    return Evaluation(values, arrays, notes, alerts)


def _notes(values: dict[str, float], minority: Tensor) -> dict[str, str]:
    """Why values are undefined, if there are not two minority classes or more."""
    if len(minority) > 1:
        return {}
    undefined = ", ".join(key.split("/")[-1] for key, value in values.items() if value != value)
    if len(minority) == 1:
        why = f"class {int(minority)} alone is the minority, and there is no pair of such classes"
    else:
        why = "no gap between class sizes sets rare ones apart; say which they are, minority=[...]"
    return {f"minority of {len(minority)}": f"{undefined} are undefined (NaN): {why}."}
