"""Neural collapse, watched while a network trains."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_nc.callbacks.checks import rank_note
from lightning_nc.callbacks.geometry_callback import Drawing, Evaluation, GeometryCallback
from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.request import Answer, ClassifierGeometry, Request
from lightning_nc.callbacks.schedule import When
from lightning_nc.figures import (
    collapse_figure,
    cosine_figure,
    save_snapshots,
    snapshot_figure,
)
from lightning_nc.functional.class_geometry import undefined_without_signal
from lightning_nc.functional.classifier import self_duality
from lightning_nc.functional.cosines import cosines
from lightning_nc.functional.neural_collapse import (
    centred,
    class_distance_normalized_variance_of,
    equiangularity,
    equinorm,
    maximal_angle,
    simplex_geometry_of,
    variability_collapse_of,
)
from lightning_nc.functional.simplex_plane import simplex_plane
from lightning_nc.probe.data import Probe
from lightning_nc.probe.layers import Pool

_MEASURES = {
    "NC1": "nc1",
    "NC2: ETF error": "nc2_etf_error",
    "NC3": "nc3",
    "NC4, where it is not 0": "nc4",
}

_FRAMES = 30  # of the film that is logged: each takes a tenth of a second


class NeuralCollapse(GeometryCallback):
    r"""Log NC1 to NC4: whether features collapse to class means, and these to a simplex.

    All quantities but accuracy tend to 0 in the terminal phase of training. Training is left as it
    was, bit by bit.

    ========================================= ====================================================
    Logged key                                Value
    ========================================= ====================================================
    ``nc/{p}/nc1``                            Within-class variability, ``Tr(Sigma_W Sigma_B^+)/K``
    ``nc/{p}/nc2_equinorm_means``             Spread of the norms of the class means
    ``nc/{p}/nc2_equinorm_weights``           Spread of the norms of the classifier's rows
    ``nc/{p}/nc2_equiangularity_means``       Spread of the angles between class means
    ``nc/{p}/nc2_equiangularity_weights``     Spread of the angles between the rows
    ``nc/{p}/nc2_maximal_angle_means``        Distance of these angles from the widest possible
    ``nc/{p}/nc2_maximal_angle_weights``      The same of the rows
    ``nc/{p}/nc2_etf_error``                  Distance of the means' Gram matrix from a simplex ETF
    ``nc/{p}/nc3``                            Self-duality: distance of classifier and class means
    ``nc/{p}/nc4``                            Share of samples not given to the nearest class centre
    ``nc/{p}/cdnv``                           Class-distance normalised variance
    ``nc/{p}/accuracy``                       Of the classifier on the probe
    ``nc/{p}/epochs_completed``               When
    ``nc/{p}/seconds``                        What it cost, callbacks that share it together
    ``nc/{p}/failures``                       How many were skipped
    ========================================= ====================================================

    ``{p}`` is the probe's name. Also drawn: the cosines between class means, and between rows.
    For two classes the means are opposite whatever is learned: their NC2 is NaN.

    Args:
        head: Name of the classifier; by default the last module to run with a weight row per class
            (or one row: two classes). Its input are the last-layer features.
        pool: Makes (N, d) features of the classifier's input, if that is a sequence.
        probe: ``"train"``, ``"val"``, ``"test"``, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last.
        epochs: Epochs completed at which to measure instead; 0 is before training.
        when: ``"train_epoch_end"`` or ``"validation_end"``.
        figures: Whether to log figures.
        on_error: ``"warn"`` skips a measurement that fails and trains on, ``"raise"`` stops.

    Example::

        trainer = Trainer(callbacks=[NeuralCollapse(every_n_epochs=10)])

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """

    family = "nc"

    def __init__(
        self,
        head: str | None = None,
        pool: Pool | None = None,
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: bool = True,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__(probe, every_n_epochs, epochs, when, figures, on_error)
        self.head = head
        self.pool = pool

    def request(self) -> Request:
        """The last-layer features and the classifier."""
        return Request(pool=self.pool, classifier=True, head=self.head)

    def evaluate(self, answer: Answer) -> Evaluation:
        """NC1 to NC4."""
        assert answer.classifier is not None
        return evaluate_collapse(answer.classifier, self.probe.key)

    def draw(self, measurement: Measurement) -> dict[str, Drawing]:
        """The cosines between class means and between the classifier's rows, and a snapshot."""
        drawings: dict[str, Drawing] = {
            self.prefix() + "cosines": partial(self._draw_cosines, measurement)
        }
        if "plane" in measurement.arrays:
            drawings[self.prefix() + "snapshot"] = lambda: snapshot_figure(
                *self._snapshot(measurement)
            )
        return drawings

    def draw_at_end(self, measurement: Measurement) -> dict[str, Drawing]:
        """NC1 to NC4 over epochs."""
        return {self.prefix() + "epochs": partial(self._draw_epochs, measurement)}

    def _draw_cosines(self, measurement: Measurement) -> Any:
        cosines = {
            "centred class means": measurement.arrays["cosines_of_means"],
            "classifier rows": measurement.arrays["cosines_of_weights"],
        }
        return cosine_figure(cosines, self.title("Cosines between classes", measurement))

    def _draw_epochs(self, measurement: Measurement) -> Any:
        measures: dict[str, Sequence[float]] = {
            label: self.over_epochs(measurement, self.prefix() + key)
            for label, key in _MEASURES.items()
        }
        epochs = self.epochs(measurement)
        title = self.title("Neural collapse over epochs")
        return collapse_figure(epochs, measures, self.terminal_epoch, title)

    def save_animation(self, path: str | Path, frames_per_second: int = 4) -> None:
        """Write the snapshots of all measurements as a film: ``"collapse.gif"``.

        Args:
            path: Of the GIF.
            frames_per_second: How fast; the last is held for two seconds.

        Raises:
            ValueError: If there is no measurement of three classes or more.
        """
        taken = [m for m in self.history if "plane" in m.arrays]
        if not taken:
            raise ValueError(
                "There are no snapshots: nothing has been measured yet, or of two classes only."
            )
        save_snapshots(Path(path), list(map(self._snapshot, taken)), frames_per_second)

    def films(self, measurement: Measurement) -> dict[str, Callable[[Path], None]]:
        """The collapse of three classes, if it was measured three times; some of many times."""
        taken = [m for m in self._like(measurement) if "plane" in m.arrays]
        if len(taken) < 3:
            return {}
        every = (len(taken) - 1) / max(min(len(taken), _FRAMES) - 1, 1)
        shown = [taken[round(i * every)] for i in range(min(len(taken), _FRAMES))]

        def save(path: Path) -> None:
            save_snapshots(path, list(map(self._snapshot, shown)), frames_per_second=4)

        return {self.prefix() + "collapse": save}

    @property
    def terminal_epoch(self) -> float | None:
        """The first measured epoch at which the classifier made no error on the probe."""
        key = self.prefix() + "accuracy"
        fitted = [m for m in self.history if m.stage == "fit"]
        return next((m.epochs_completed for m in fitted if m.values.get(key) == 1), None)

    def events(self, measurement: Measurement) -> dict[str, str]:
        """The beginning of the terminal phase of training, as far as the probe shows it.

        That phase begins when the training error is zero, of which other data know nothing; those
        of the user may be any.
        """
        at_first = self.terminal_epoch == measurement.epochs_completed
        if self.probe.source != "train" or measurement.stage != "fit" or not at_first:
            return {}
        return {
            "terminal phase": f"after {measurement.epochs_completed:g} epochs the classifier makes "
            f"no error on the {int(measurement.counts.sum())} samples of '{self.probe.key}': the "
            "terminal phase of training begins, if it makes none on the rest of the training data."
        }

    def _snapshot(self, measurement: Measurement) -> tuple[Tensor, Tensor, str]:
        """Means and rows in the plane of classes 0 to 2, and a title."""
        means, rows = measurement.arrays["plane"]
        K = len(measurement.counts)
        title = self.title("Neural collapse", measurement)
        return means, rows, f"{title}\nclasses 0, 1, 2 of {K}"


def evaluate_collapse(classifier: ClassifierGeometry, probe: str) -> Evaluation:
    """The logged values of `NeuralCollapse`, from the geometry of the last layer."""
    geometry, W = classifier.features, classifier.weight
    of_means = simplex_geometry_of(geometry)
    of_weights = {
        "nc2_equinorm_weights": equinorm(W),
        "nc2_equiangularity_weights": equiangularity(W),
        "nc2_maximal_angle_weights": maximal_angle(W),
    }
    decisions = {
        "nc3": undefined_without_signal(self_duality(geometry.means, W), geometry.rank),
        "nc4": undefined_without_signal(classifier.mismatch, geometry.rank),
        "accuracy": classifier.accuracy,
    }
    nan = W.new_tensor(torch.nan)
    if len(W) == 2 and torch.equal(W[0], -W[1]):  # one logit: opposite whatever is learned
        of_weights = dict.fromkeys(of_weights, nan)
    if not classifier.is_affine:
        decisions = dict.fromkeys(decisions, nan)
    scalars = {
        "nc1": variability_collapse_of(geometry),
        **of_means,
        **of_weights,
        **decisions,
        "cdnv": class_distance_normalized_variance_of(geometry),
    }
    values = {f"nc/{probe}/{name}": float(value) for name, value in scalars.items()}
    arrays = {
        "cosines_of_means": cosines(centred(geometry.means)),
        "cosines_of_weights": cosines(W),
    }
    if len(W) > 2 and W.shape[1] > 1:
        arrays["plane"] = torch.stack(simplex_plane(geometry.means[:3], W[:3]))
    undefined = [name for name, value in scalars.items() if not bool(value.isfinite())]
    notes = rank_note({"the classifier's input": geometry})
    if undefined:
        if not classifier.is_affine:
            why = "the head does not compute W h + b from its weight and bias"
        elif len(W) == 2:
            why = "two class means are opposite whatever is learned, and one angle has no spread"
        else:
            why = "class means coincide, or a mean or a row of the classifier is zero"
        notes["undefined"] = f"{', '.join(undefined)} are undefined (NaN): {why}."
    return Evaluation(values, arrays, notes)
