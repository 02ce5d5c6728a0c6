"""The figures of minority collapse."""

from typing import Any

from lightning_nc.figures import (
    class_size_figure,
    cosine_figure,
    cosine_histogram_figure,
    prediction_figure,
)
from lightning_nc.figures.canvas import Target
from lightning_nc.measures.layer_peeled_prediction import predicted_curve
from lightning_nc.measures.timeline import Timeline


def draw_cosines(timeline: Timeline, on: Target = None) -> Any:
    """Draw the cosines between classes, ordered by class size if that is known."""
    arrays, title = timeline.last.arrays, timeline.title_of_last("Cosines by class size")
    if any(name.startswith("histogram_of_") for name in arrays):
        return _draw_histograms(timeline, on)
    n, minority = arrays["class_counts"], arrays["minority"]
    by_size = n.argsort(descending=True, stable=True)
    K_B = int(minority.sum())
    known = bool(n.isfinite().all())
    # minority classes given by the user need not be the smallest; if not, there is no border
    last = K_B > 0 and bool(minority[by_size][-K_B:].all())
    border = len(n) - K_B if last and known else None
    names = [timeline.last.class_names[k] for k in by_size]
    cosines_by_size = {
        name: arrays[key][by_size][:, by_size]
        for name, key in (
            ("classifier rows", "cosines_of_weights"),
            ("centred class means", "cosines_of_means"),
        )
    }
    return cosine_figure(cosines_by_size, title, names, known, border, on)


def _draw_histograms(timeline: Timeline, on: Target) -> Any:
    """Draw the cosines within majority and minority classes, or within all, of many classes."""
    arrays, title = timeline.last.arrays, timeline.title_of_last("Cosines within groups of classes")
    of_groups = {}
    for name, key in (
        ("classifier rows", "histogram_of_weights"),
        ("centred class means", "histogram_of_means"),
    ):
        start = f"{key}_"
        known = {k.removeprefix(start): arrays[k] for k in arrays if k.startswith(start)}
        of_groups[name] = known or {"": arrays[key]}
    return cosine_histogram_figure(of_groups, title, len(timeline.last.counts), on)


def draw_norms(timeline: Timeline, on: Target = None) -> Any:
    """Draw norms against class size."""
    arrays = timeline.last.arrays
    norms = {
        "classifier rows": arrays["norms_of_weights"],
        "centred class means": arrays["norms_of_means"],
    }
    title = timeline.title_of_last("Norms by class size")
    names = timeline.last.class_names
    n, minority = arrays["class_counts"], arrays["minority"]
    return class_size_figure(n, norms, minority, names, title, on)


def draw_prediction(timeline: Timeline, on: Target = None) -> Any:
    """Draw the cosine of minority rows, and the predicted cosine against the imbalance."""
    cosine, R, E_W, E_H = map(
        timeline.value, ("cos_weights", "imbalance_ratio", "energy_weights", "energy_features")
    )
    minority = timeline.last.arrays["minority"]
    K, K_B = len(minority), int(minority.sum())
    curve = predicted_curve(K - K_B, K_B, E_W, E_H, 10 * R)
    title = timeline.title_of_last("Minority collapse")
    return prediction_figure(R, cosine, *curve, -1 / (K - 1), title, on)
