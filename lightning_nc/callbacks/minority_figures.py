"""The figures of `MinorityCollapse`."""

from collections.abc import Mapping
from typing import Any

from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.minority_theory import predicted_curve
from lightning_nc.figures import class_size_figure, cosine_figure, prediction_figure


def draw_cosines(measurement: Measurement, title: str) -> Any:
    """Cosines in the order of class size, as far as that is known."""
    arrays = measurement.arrays
    n, minority = arrays["class_counts"], arrays["minority"]
    by_size = n.argsort(descending=True, stable=True)
    K_B = int(minority.sum())
    known = bool(n.isfinite().all())
    # minority classes that were given need not be the smallest, and have no border then
    last = K_B > 0 and bool(minority[by_size][-K_B:].all())
    shown = (by_size.tolist(), len(n) - K_B if last else None) if known else ()
    cosines_by_size = {
        name: arrays[key][by_size][:, by_size]
        for name, key in (
            ("classifier rows", "cosines_of_weights"),
            ("centred class means", "cosines_of_means"),
        )
    }
    return cosine_figure(cosines_by_size, title, *shown)


def draw_norms(measurement: Measurement, title: str) -> Any:
    """Norms against class size."""
    arrays = measurement.arrays
    norms = {
        "classifier rows": arrays["norms_of_weights"],
        "centred class means": arrays["norms_of_means"],
    }
    return class_size_figure(arrays["class_counts"], norms, arrays["minority"], title)


def draw_prediction(measurement: Measurement, values: Mapping[str, float], title: str) -> Any:
    """The cosine of minority rows, and what the layer-peeled model has for other imbalances.

    Args:
        measurement: With the arrays of `MinorityCollapse`.
        values: Its values, by the end of their keys.
        title: Above the figure.
    """
    cosine, ratio = values["cos_weights"], values["imbalance_ratio"]
    energies = values["energy_weights"], values["energy_features"]
    K, K_B = len(measurement.arrays["minority"]), int(measurement.arrays["minority"].sum())
    curve = predicted_curve(K - K_B, K_B, *energies, 10 * ratio)
    return prediction_figure(ratio, cosine, *curve, -1 / (K - 1), title)
