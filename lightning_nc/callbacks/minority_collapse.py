"""Minority collapse, watched while a network trains."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_nc.callbacks.class_counts import TrainingCounts
from lightning_nc.callbacks.geometry_callback import Drawing, Evaluation, GeometryCallback
from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.minority_evaluation import evaluate_minority
from lightning_nc.callbacks.minority_figures import draw_cosines, draw_norms, draw_prediction
from lightning_nc.callbacks.minority_theory import Predictions
from lightning_nc.callbacks.request import Answer, Request
from lightning_nc.callbacks.schedule import When
from lightning_nc.functional.minority_collapse import minority_classes
from lightning_nc.probe.data import Probe
from lightning_nc.probe.layers import Pool

ENERGIES = ("weights", "features")  # E_W and E_H, of the logged keys


class MinorityCollapse(GeometryCallback):
    r"""Log whether the classifier still tells rare classes apart.

    Where some classes have few training samples, the classifier's rows for them draw together, and
    from a finite imbalance on they can coincide. Training is left as it was, bit by bit.

    ========================================= ====================================================
    Logged key                                Value
    ========================================= ====================================================
    ``minority/{p}/cos_weights``              Mean cosine between rows of minority classes
    ``minority/{p}/cos_means``                The same of class means about their mean
    ``minority/{p}/cos_majority_weights``     Mean cosine between rows of majority classes
    ``minority/{p}/norm_ratio``               Mean norm of minority rows by that of majority rows
    ``minority/{p}/imbalance_ratio``          R: training samples per majority and minority class
    ``minority/{p}/energy_weights``           E_W: mean squared norm of the rows
    ``minority/{p}/energy_features``          E_H: mean squared norm of last-layer features
    ``minority/{p}/energy_features_centered`` The same about the mean of the class means
    ``minority/{p}/minority_accuracy``        Mean accuracy over minority classes, on the probe
    ``minority/{p}/predicted_cos``            With ``theory``: ``cos_weights`` as theory has it
    ``minority/{p}/critical_ratio``           With ``theory``: R from which on rows coincide there
    ``minority/{p}/epochs_completed``         When
    ``minority/{p}/seconds``                  What it cost, callbacks that share it together
    ``minority/{p}/failures``                 How many were skipped
    ========================================= ====================================================

    ``{p}`` is the probe's name. Cosines are -1/(K-1) on the simplex that balanced classes make, and
    1 where rows have merged. Also drawn: cosines in the order of class size, norms against it.

    Class counts are those of the last complete training epoch, as its batches came (before one is
    complete, those that the dataset declares, NaN if it does not); the probe, which is stratified,
    has no say in them.

    With ``theory`` the layer-peeled model is solved for these counts and the measured energies
    (features as they are). It knows no BatchNorm, bias or weight decay: its prediction is a
    question to ask of a network, not a claim about it.

    Args:
        minority: Minority classes; by default those below the largest gap in the log counts. Give
            them where there is no clear gap: long tails, or nearly balanced sampling.
        head: Name of the classifier, as of `NeuralCollapse`.
        class_counts: Training samples per class, if batches cannot tell.
        theory: Whether to predict, too; needs ``lightning-neural-collapse[theory]``.
        pool: Makes (N, d) features of the classifier's input, if that is a sequence.
        merged_above: ``cos_weights`` above which a warning (on W&B an alert) says, once, that
            minority classes have merged.
        probe: ``"train"``, ``"val"``, ``"test"``, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last.
        epochs: Epochs completed at which to measure instead; 0 is before training.
        when: ``"train_epoch_end"`` or ``"validation_end"``.
        figures: Whether to log figures.
        on_error: ``"warn"`` skips a measurement that fails and trains on, ``"raise"`` stops.

    Raises:
        ValueError: If arguments are out of range.
        ImportError: If ``theory`` is wanted without cvxpy.

    Example::

        trainer = Trainer(callbacks=[MinorityCollapse(every_n_epochs=10)])

    Source:
        Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
        collapse in imbalanced training", PNAS 118(43).
    """

    family = "minority"

    def __init__(
        self,
        minority: Sequence[int] | None = None,
        head: str | None = None,
        class_counts: Sequence[int] | None = None,
        theory: bool = False,
        pool: Pool | None = None,
        merged_above: float = 0.95,
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: bool = True,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__(probe, every_n_epochs, epochs, when, figures, on_error)
        if class_counts is not None and (len(class_counts) < 2 or min(class_counts) < 0):
            raise ValueError(f"class_counts needs a count of each class, got {class_counts}.")
        if minority is not None and (len(minority) == 0 or len(set(minority)) < len(minority)):
            raise ValueError(f"minority needs different classes, got {list(minority)}.")
        self.minority = minority
        self.head = head
        self.class_counts = class_counts
        self.pool = pool
        self.merged_above = merged_above
        self.predictions = Predictions() if theory else None
        self.counts = self._no_counts()
        self.rank, self.processes = 0, 1

    def request(self) -> Request:
        """The last-layer features and the classifier, and how often training saw each class."""
        return Request(pool=self.pool, classifier=True, head=self.head, tally=self._tally)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """As of all callbacks; a fresh run counts afresh."""
        super().setup(trainer, pl_module, stage)
        self.rank, self.processes = trainer.global_rank, trainer.world_size
        if stage == "fit" and trainer.global_step == 0:
            self.counts = self._no_counts()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the declared class counts, and measure before training."""
        if self.class_counts is None:
            self.counts.declare(trainer)
        super().on_train_start(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the classes of a batch."""
        if self.class_counts is None:
            if batch_idx == 0:  # Lightning may resume in the middle of an epoch
                self.counts.begin_epoch()
            self.counts.see(batch, trainer.strategy.root_device)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Have the counts of an epoch ready when its last batch is over."""
        if trainer.is_last_batch:
            self.counts.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """As of all callbacks, and the class counts."""
        alone = self.processes == 1
        known = self.counts.complete if alone else self.counts.of_all_processes
        return super().state_dict() | {"class_counts": None if known is None else known.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with history and class counts of a checkpoint."""
        super().load_state_dict(state_dict)
        if state_dict.get("class_counts") is not None:
            self.counts.set_total(torch.tensor(state_dict["class_counts"]))

    def evaluate(self, answer: Answer) -> Evaluation:
        """Cosines, norms and energies of majority and minority."""
        assert answer.classifier is not None
        K = len(answer.counts)
        n = self._training_counts(answer)
        minority = self._minority(n, K)
        evaluation = evaluate_minority(
            answer.classifier, n, minority, self.probe.key, self.merged_above
        )
        if self.predictions is not None:
            self._predict(self.predictions, evaluation, n, minority)
        if bool(torch.isnan(self._tallied(answer)).any()):
            why = self.counts.lost or "another process says why"
            evaluation.notes["counts"] = (
                "imbalance_ratio, and the minority if it is not given, are undefined (NaN): the "
                f"classes of training batches cannot be counted ({why}); give class_counts=[...]."
            )
        return evaluation

    def draw(self, measurement: Measurement) -> dict[str, Drawing]:
        """Cosines in the order of class size, norms against it, and what theory predicts."""
        drawings: dict[str, Drawing] = {
            self.prefix() + "cosines": partial(
                draw_cosines, measurement, self.title("Cosines by class size", measurement)
            ),
            self.prefix() + "norms": partial(
                draw_norms, measurement, self.title("Norms by class size", measurement)
            ),
        }
        if self.predictions is not None:
            start = self.prefix()
            values = {key.removeprefix(start): value for key, value in measurement.values.items()}
            if math.isfinite(values["cos_weights"]) and math.isfinite(values["imbalance_ratio"]):
                title = self.title("Minority collapse", measurement)
                drawings[self.prefix() + "theory"] = partial(
                    draw_prediction, measurement, values, title
                )
        return drawings

    def _predict(
        self,
        predictions: Predictions,
        evaluation: Evaluation,
        n: Tensor | None,
        minority: Tensor | None,
    ) -> None:
        """Add what theory says; the same on every process."""
        cosine, R_0, trouble = math.nan, math.nan, "it is not known which classes are rare"
        if n is not None and minority is not None:
            energies = (evaluation.values[self.prefix() + f"energy_{name}"] for name in ENERGIES)
            cosine, R_0, trouble = predictions.of(n, minority.nonzero().flatten(), *energies)
        evaluation.values[self.prefix() + "predicted_cos"] = cosine
        evaluation.values[self.prefix() + "critical_ratio"] = R_0
        if trouble:
            evaluation.notes["theory"] = f"no prediction by the layer-peeled model: {trouble}."

    def _no_counts(self) -> TrainingCounts:
        return TrainingCounts(self.probe.unpack if self.probe.source == "train" else None)

    def _tally(self, K: int) -> Tensor:
        return self.counts.tally(K, self.rank)

    def _tallied(self, answer: Answer) -> Tensor:
        """What was counted, over all processes; zeros if nothing was, NaN if it could not be."""
        assert answer.tally is not None
        return answer.tally.cpu() if self.class_counts is None else answer.counts.cpu()

    def _training_counts(self, answer: Answer) -> Tensor | None:
        """Training samples per class, over all processes; None if they are not known."""
        K = len(answer.counts)
        if self.class_counts is None:
            n = self._tallied(answer)
            known = bool(n.isfinite().all() & n.any())
            self.counts.of_all_processes = n.long() if known else None
            return self.counts.of_all_processes
        if len(self.class_counts) != K:
            raise ValueError(
                f"class_counts has {len(self.class_counts)} counts, and there are {K} classes."
            )
        return torch.tensor(self.class_counts)

    def _minority(self, n: Tensor | None, K: int) -> Tensor | None:
        """True for minority classes; None if it is not known which they are."""
        if self.minority is None:
            return None if n is None else minority_classes(n)
        if not set(self.minority) < set(range(K)):
            raise ValueError(
                f"minority={list(self.minority)} needs to be some of the classes 0 .. {K - 1}."
            )
        return torch.zeros(K, dtype=torch.bool).index_fill(0, torch.tensor(self.minority), True)
