"""Minority collapse: whether the classifier still tells minority classes apart."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from lightning_nc.arguments import (
    require_module_name,
    require_number,
    require_pooling,
    require_whole_numbers,
    require_yes_or_no,
)
from lightning_nc.figures.tables import Lines, Table, cosine_tables
from lightning_nc.functional.cosines import norms
from lightning_nc.functional.minority_collapse import (
    classifier_energy,
    feature_energy_of,
    minority_classes,
)
from lightning_nc.measures.layer_peeled_prediction import Prediction, Predictions
from lightning_nc.measures.many_classes import cosine_arrays
from lightning_nc.measures.measure import Drawing, Evaluation, Measure
from lightning_nc.measures.minority_collapse_quantities import QUANTITIES, Minority
from lightning_nc.measures.minority_figures import draw_cosines, draw_norms, draw_prediction
from lightning_nc.measures.minority_notes import minority_notes
from lightning_nc.measures.timeline import Timeline
from lightning_nc.network.points import Pool
from lightning_nc.passes.request import Answer, Request
from lightning_nc.wording import listed

_UNTRAINED = "there has been no training in which to count classes"


class ClassCounter(Protocol):
    """Counts the training samples of each class.

    Attributes:
        counting: Whether training has begun, so that counts that are unknown will become known.
        at_random: Whether samples are drawn with replacement, so that counts differ by chance.
        lost: Why the batches could not be counted; empty if they could.
    """

    counting: bool
    at_random: bool
    lost: str

    def tally(self, K: int) -> Tensor:
        """The counts of this process, shape ``(K,)``; NaN if it could not count."""

    def take_total(self, n: Tensor | None) -> None:
        """Receive the counts of all processes, shape ``(K,)``; None if they are unknown."""


class MinorityMeasure(Measure):
    """Cosines, norms and energies of minority and majority classes.

    Args:
        minority: See the callback `MinorityCollapse`, also for the other arguments.
        head: Name of the head.
        class_counts: Training samples per class.
        theory: Whether to add the prediction of the layer-peeled model.
        pool: Makes (N, d) features of the classifier's input.
        merged_above: Mean cosine of rows above which minority classes count as merged.

    Raises:
        ValueError: If arguments are out of range.
        ImportError: If ``theory`` is requested without cvxpy.
    """

    family = "minority"
    title = "Minority collapse"
    question = "Does the classifier still tell minority classes apart?"
    figures = ("cosines", "norms", "theory")
    quantities = QUANTITIES

    def __init__(
        self,
        minority: Sequence[int] | None = None,
        head: str | None = None,
        class_counts: Sequence[int] | None = None,
        theory: bool = False,
        pool: Pool = "auto",
        merged_above: float = 0.95,
    ) -> None:
        require_module_name("head", head)
        require_pooling(pool)
        require_number("merged_above", merged_above, -1)
        if class_counts is not None:
            class_counts = require_whole_numbers("class_counts", class_counts)
            if len(class_counts) < 2:
                raise ValueError(f"class_counts needs a count for each class, got {class_counts}.")
        if minority is not None:
            minority = require_whole_numbers("minority", minority)
            if len(minority) == 0 or len(set(minority)) < len(minority):
                raise ValueError(f"minority needs one or more distinct classes, got {minority}.")
        self.minority, self.head, self.class_counts = minority, head, class_counts
        self.pool, self.merged_above = pool, merged_above
        self.counter: ClassCounter | None = None  # given by a callback that counts
        self.predictions = Predictions() if require_yes_or_no("theory", theory) else None

    def request(self) -> Request:
        """Request the last-layer features, the classifier, and the training samples per class."""
        tally = None if self.counter is None else self.counter.tally
        return Request(
            pool=self.pool, classifier=True, head=self.head, needs_head=True, tally=tally
        )

    def evaluate(self, answer: Answer) -> Evaluation:
        """Compute cosines, norms and energies of majority and minority classes."""
        assert answer.classifier is not None
        classes = answer.labels
        n, why_unknown = self._training_counts(answer, classes)
        found = Minority(answer.classifier, n, self._is_minority(n, classes))
        of_theory: dict[str, str] = {}
        if self.predictions is not None and len(found.B):
            found, of_theory = self._with_prediction(self.predictions, found)
        values = self.values_of(found)
        theory = self.predictions is not None
        notes = of_theory | minority_notes(values, found, classes, why_unknown, theory)
        return Evaluation(values, {}, _arrays(found), notes, self._alerts(values, found))

    def draw(self, timeline: Timeline) -> dict[str, Drawing]:
        """Figures of cosines ordered by class size, of norms against it, and of the prediction."""
        drawings: dict[str, Drawing] = {
            "cosines": partial(draw_cosines, timeline),
            "norms": partial(draw_norms, timeline),
        }
        known = [timeline.value(name) for name in ("cos_weights", "imbalance_ratio")]
        if self.predictions is not None and bool(torch.tensor(known).isfinite().all()):
            drawings["theory"] = partial(draw_prediction, timeline)
        return drawings

    def tables(self, timeline: Timeline) -> dict[str, Table | Lines]:
        """Tables of both matrices of cosines."""
        last = timeline.last
        return cosine_tables(last.epochs_completed, last.arrays, last.classes)

    def _training_counts(self, answer: Answer, classes: Tensor) -> tuple[Tensor | None, str]:
        """Training samples per class over all processes, or None and why these stay unknown.

        The reason is empty if they are known, or will be after an epoch of training.
        """
        if self.class_counts is not None:
            counts = torch.tensor(self.class_counts)
            if len(counts) <= int(classes[-1]):
                raise ValueError(
                    f"class_counts has {len(counts)} counts, but there is a class "
                    f"{int(classes[-1])}. Give a count for each class from 0."
                )
            return counts[classes], ""
        if answer.tally is None or self.counter is None:
            return None, _UNTRAINED
        tally = answer.tally.cpu()
        known = bool(tally.isfinite().all() & tally.any())
        self.counter.take_total(tally.long() if known else None)
        if bool(tally.isnan().any()):
            why = self.counter.lost or "the cause is on another process"
            return None, f"the classes of training batches cannot be counted ({why})"
        n = tally.long()[classes] if known else None
        return n, "" if n is not None or self.counter.counting else _UNTRAINED

    def _is_minority(self, n: Tensor | None, classes: Tensor) -> Tensor:
        """True for minority classes, shape ``(K,)``; all False if none are known."""
        if self.minority is None:
            none = torch.zeros(len(classes), dtype=torch.bool)
            at_random = self.counter is not None and self.counter.at_random
            return none if n is None else minority_classes(n, at_random=at_random)
        if not set(self.minority) < set(classes.tolist()):
            raise ValueError(
                f"minority={list(self.minority)} must be some, not all, of the classes "
                f"{listed(classes.tolist(), 10)}."
            )
        return torch.isin(classes, torch.tensor(self.minority))

    def _with_prediction(
        self, predictions: Predictions, found: Minority
    ) -> tuple[Minority, dict[str, str]]:
        """Add the prediction of the layer-peeled model, and a note if there is none."""
        if found.n is None:
            return found._replace(prediction=Prediction()), {}
        E_W, E_H = classifier_energy(found.W), feature_energy_of(found.last.features)
        prediction = predictions.of(found.n, found.B.cpu(), float(E_W), float(E_H))
        trouble = prediction.trouble
        note = {"theory": f"the layer-peeled model predicts nothing: {trouble}."} if trouble else {}
        return found._replace(prediction=prediction), note

    def _alerts(self, values: Mapping[str, float], found: Minority) -> dict[str, str]:
        cosine = values.get("cos_weights", math.nan)
        if not cosine > self.merged_above:
            return {}
        return {
            "minority classes have merged": f"the classifier rows of {len(found.B)} minority "
            f"classes have a mean cosine of {cosine:.3f}: the classifier hardly tells them apart."
        }


def _arrays(found: Minority) -> dict[str, Tensor]:
    W, M, n, minority = found.W, found.M, found.n, found.is_minority
    groups = {"majority": found.A, "minority": found.B} if len(found.B) else None
    return {
        "class_counts": torch.full((len(W),), torch.nan) if n is None else n.double(),
        "minority": minority.double(),
        **cosine_arrays({"weights": W, "means": M}, groups),
        "norms_of_weights": norms(W),
        "norms_of_means": norms(M) * found.last.features.scale,
        "class_accuracy": found.class_accuracy,
    }
