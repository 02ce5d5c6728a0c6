"""Neural collapse, NC1 to NC4: features collapse to class means, and class means to a simplex."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_nc.arguments import require_layers, require_module_name, require_pooling
from lightning_nc.figures import (
    collapse_figure,
    cosine_figure,
    cosine_histogram_figure,
    save_snapshots,
    snapshot_figure,
)
from lightning_nc.figures.canvas import Target
from lightning_nc.figures.snapshot import Snapshot
from lightning_nc.figures.tables import Lines, Table, cosine_tables
from lightning_nc.functional.input_checks import all_finite
from lightning_nc.functional.simplex_plane import simplex_plane
from lightning_nc.measures.last_layer import LastLayer
from lightning_nc.measures.laws import draw_by_epoch
from lightning_nc.measures.layer_collapse_quantities import LAYER_QUANTITIES, LayerCollapse
from lightning_nc.measures.many_classes import cosine_arrays
from lightning_nc.measures.measure import Drawing, Evaluation, Measure
from lightning_nc.measures.neural_collapse_quantities import QUANTITIES
from lightning_nc.measures.notes import (
    OUTPUTS_NAN,
    ROWS_NOT_FINITE,
    rank_note,
    single_samples_note,
    undefined_notes,
)
from lightning_nc.measures.quantity import Quantity
from lightning_nc.measures.timeline import Timeline
from lightning_nc.network.points import Layers, Pool
from lightning_nc.passes.request import Answer, ClassifierGeometry, Request
from lightning_nc.wording import listed

_PAIRED = {"nc3", "unc3"}  # which compare rows with class means
_FRAMES = 30  # frames of the logged film at most; drawing each takes a tenth of a second
_OVER_EPOCHS = {
    "NC1": "nc1",
    "NC2 simplex error": "nc2_etf_error",
    "NC3": "nc3",
    "NC4": "nc4",
}


class CollapseMeasure(Measure):
    """NC1 to NC4 of the classifier and its input, and what of these applies to any layer.

    Args:
        head: See the callback `NeuralCollapse`.
        layers: See the callback.
        pool: See the callback.
    """

    family = "nc"
    title = "Neural collapse"
    question = "Do features collapse to their class means, and these to a simplex?"
    figures = ("cosines", "snapshot", "epochs", "layers", "collapse")
    quantities = QUANTITIES
    layer_quantities: tuple[Quantity, ...] = LAYER_QUANTITIES

    def __init__(
        self,
        head: str | Literal[False] | None = None,
        layers: Layers | None = None,
        pool: Pool = "auto",
    ) -> None:
        if head is not False:
            require_module_name("head", head, ", or False")
        require_pooling(pool)
        self.head, self.pool = head, pool
        self.layers = None if layers is None else require_layers(layers)
        if layers is None:
            self.layer_quantities = ()

    def request(self) -> Request:
        """Request the last-layer features and the classifier, and the geometry of the layers."""
        return Request(
            layers=self.layers,
            pool=self.pool,
            classifier=True,
            head=self.head,
            mismatches=self.layers is not None,
        )

    def evaluate(self, answer: Answer) -> Evaluation:
        """Compute NC1 to NC4, and NC1, CDNV and NC4 of each layer."""
        assert answer.classifier is not None
        last = LastLayer(answer.classifier)
        W, means = last.weight, last.features.means
        arrays = _cosines(last)
        if W is not None and len(W) > 2 and W.shape[1] > 1:
            arrays["plane"] = torch.stack(simplex_plane(means[:3], W[:3]))
        values = self.values_of(last)
        layers = self.values_of_layers(
            {
                name: LayerCollapse(geometry, answer.mismatches.get(name))
                for name, geometry in answer.layers.items()
            }
        )
        notes = rank_note({**answer.layers, "the classifier's input": last.features})
        notes |= single_samples_note(answer.counts, "NC1 and CDNV")
        notes |= _undefined(values, answer.classifier) | _undefined_at_layers(layers, values)
        return Evaluation(values, layers, arrays, notes)

    def draw(self, timeline: Timeline) -> dict[str, Drawing]:
        """Figures of the cosines of class means and of classifier rows, and a snapshot."""
        drawings: dict[str, Drawing] = {"cosines": partial(_draw_cosines, timeline)}
        if "plane" in timeline.last.arrays:
            drawings["snapshot"] = partial(_draw_snapshot, timeline)
        return drawings

    def draw_at_end(self, timeline: Timeline) -> dict[str, Drawing]:
        """Figures of NC1 to NC4 over epochs, and of NC1 against depth over epochs."""
        drawings: dict[str, Drawing] = {"epochs": partial(_draw_epochs, timeline)}
        if timeline.layers_with("nc1"):
            title = "NC1 at each layer by epoch"
            drawings["layers"] = partial(draw_by_epoch, timeline, title, "NC1", name="nc1")
        return drawings

    def films(self, timeline: Timeline) -> dict[str, Callable[[Path], None]]:
        """A film of the collapse of three classes, if there are three or more snapshots."""
        taken = snapshots_of(timeline)
        if len(taken) < 3:
            return {}
        every = (len(taken) - 1) / (min(len(taken), _FRAMES) - 1)
        shown = [taken[round(i * every)] for i in range(min(len(taken), _FRAMES))]
        return {"collapse": partial(save_snapshots, snapshots=shown, frames_per_second=4)}

    def events(self, timeline: Timeline) -> dict[str, str]:
        """The beginning of the terminal phase of training, as far as the probe shows it.

        It begins when the training error is zero, so only a probe of training data shows it.
        """
        first = first_without_error(timeline.over_epochs("accuracy"))
        if not timeline.of_training_data or first != len(timeline.measurements) - 1:
            return {}
        return {
            "terminal phase": f"after {timeline.last.when} the classifier makes no error on the "
            f"{int(timeline.last.counts.sum())} samples of '{timeline.probe}': the terminal phase "
            "of training begins, if it makes none on the rest of the training data."
        }

    def tables(self, timeline: Timeline) -> dict[str, Table | Lines]:
        """Tables of both matrices of cosines."""
        last = timeline.last
        return cosine_tables(last.epochs_completed, last.arrays, last.classes)


def first_without_error(accuracies: Iterable[float]) -> int | None:
    """The number of the first measurement without an error on the probe; None if there is none."""
    return next((number for number, each in enumerate(accuracies) if each == 1), None)


def snapshots_of(timeline: Timeline) -> list[Snapshot]:
    """Snapshots of the first three classes, where they were measured."""
    snapshots: list[Snapshot] = []
    for each in timeline.measurements:
        if "plane" in each.arrays:
            means, rows = each.arrays["plane"]
            title = timeline._replace(measurements=[each]).title_of_last("Neural collapse")
            title += f"\nthree of {len(each.counts)} classes"
            snapshots.append(Snapshot(means, rows, each.class_names[:3], title))
    return snapshots


def _cosines(last: LastLayer) -> dict[str, Tensor]:
    """The cosines of class means and of rows, as figures show them."""
    if last.of_means.histogram is None:
        rows = {} if last.weight is None else {"weights": last.weight}
        return cosine_arrays({"means": last.centred_means, **rows})
    histograms = {"histogram_of_means": last.of_means.histogram}
    if last.weight is not None and last.of_rows.histogram is not None:
        histograms["histogram_of_weights"] = last.of_rows.histogram
    return histograms


def _undefined(values: Mapping[str, float], last: ClassifierGeometry) -> dict[str, str]:
    """Why some values are NaN or infinite, by cause."""
    causes: list[tuple[str, Callable[[str], bool]]] = []
    if _outputs_nan(values):
        causes.append((OUTPUTS_NAN, {"accuracy", "nc4"}.__contains__))
    if last.weight is not None and not all_finite(last.weight):
        causes.append((ROWS_NOT_FINITE, lambda name: name in _PAIRED or "weights" in name))
    if not last.is_affine:
        why = "the head does not compute W h + b from its weight and bias"
        causes.append((why, _PAIRED.__contains__))
    if len(last.features.means) == 2:
        why = "two centred class means are always opposite, and a single angle has no spread"
        causes.append((why, lambda name: name.startswith("nc2") or name == "gnc2"))
    why = "class means coincide, or a class mean or a classifier row is zero"
    causes.append((why, lambda name: True))
    return undefined_notes(values, causes)


def _outputs_nan(values: Mapping[str, float]) -> bool:
    """Whether the network outputs NaN: the accuracy is a share, and undefined for nothing else."""
    return math.isnan(values.get("accuracy", 1))


def _undefined_at_layers(
    layers: Mapping[str, float], values: Mapping[str, float]
) -> dict[str, str]:
    """Why some values of layers are NaN or infinite, where that of the last layer does not say."""
    undefined = [name for name, value in layers.items() if not math.isfinite(value)]
    if _outputs_nan(values):
        undefined = [name for name in undefined if not name.endswith("/nc4")]
    if not undefined:
        return {}
    return {
        "undefined layers": f"{listed(map(repr, undefined))} are undefined (NaN or infinite): "
        "class means coincide there."
    }


def _draw_cosines(timeline: Timeline, on: Target = None) -> Any:
    arrays, title = timeline.last.arrays, timeline.title_of_last("Cosines between classes")
    many = "histogram_of_means" in arrays
    start = "histogram_of_" if many else "cosines_of_"
    shown = {"centred class means": arrays[f"{start}means"]}
    if f"{start}weights" in arrays:  # there is a head
        shown["classifier rows"] = arrays[f"{start}weights"]
    if not many:
        return cosine_figure(shown, title, timeline.last.class_names, on=on)
    histograms = {name: {"": counts} for name, counts in shown.items()}
    return cosine_histogram_figure(histograms, title, len(timeline.last.counts), on)


def _draw_snapshot(timeline: Timeline, on: Target = None) -> Any:
    return snapshot_figure(snapshots_of(timeline)[-1], on)


def _draw_epochs(timeline: Timeline, on: Target = None) -> Any:
    curves = {label: timeline.over_epochs(name) for label, name in _OVER_EPOCHS.items()}
    title = timeline.title("Neural collapse over epochs")
    (places,), first = timeline.time.places, first_without_error(timeline.over_epochs("accuracy"))
    terminal = None if first is None else places[first]
    return collapse_figure(places, curves, terminal, title, on, timeline.time.label)
