"""Minority collapse, watched while a network trains."""

from collections.abc import Sequence
from typing import Any

import torch

from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.record import OnError
from lightning_nc.callbacks.schedule import When
from lightning_nc.callbacks.training_counts import TrainingCounts
from lightning_nc.measures.minority_collapse import MinorityMeasure
from lightning_nc.network.points import Pool
from lightning_nc.passes.probe import Probe


class MinorityCollapse(MeasureCallback):
    """Log whether the classifier still tells minority classes apart.

    Where some classes have few training samples, the classifier's rows for them draw together, and
    from a finite imbalance on they can coincide. Training is left as it was, bit by bit.

    Logged under these keys, with the name of the probe for ``{p}``:

    - ``minority/{p}/cos_weights``: Mean cosine between the classifier's rows of minority classes;
      at 1 they are one.
    - ``minority/{p}/predicted_cos``: What the layer-peeled model has for these rows, at the
      measured class counts and energies.
    - ``minority/{p}/cos_means``: Mean cosine between the centred class means of minority classes.
    - ``minority/{p}/cos_majority_weights``: Mean cosine between the classifier's rows of majority
      classes, to compare with.
    - ``minority/{p}/norm_ratio``: Mean norm of the rows of minority classes by that of majority
      ones.
    - ``minority/{p}/minority_accuracy``: Mean accuracy over the minority classes, on the probe.
    - ``minority/{p}/imbalance_ratio``: Training samples of a majority class by those of a minority
      one, as training has drawn them.
    - ``minority/{p}/critical_ratio``: The imbalance from which on the layer-peeled model has all
      minority rows coincide.
    - ``minority/{p}/energy_weights``: Mean squared norm of the classifier's rows, E_W in the layer-
      peeled model.
    - ``minority/{p}/energy_features``: Mean squared norm of last-layer features, E_H in the layer-
      peeled model.
    - ``minority/{p}/energy_features_centered``: Mean squared norm of last-layer features about the
      mean of the class means.
    - ``minority/{p}/...``: ``epochs_completed``, ``seconds``, ``failures`` of each measurement.

    Cosines are -1/(K-1) on the simplex that balanced classes make, and 1 where rows have merged.

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
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: ``"train_epoch_end"`` or ``"validation_end"``.
        figures: Whether to log figures.
        on_error: ``"warn"`` skips a measurement that fails and trains on, ``"raise"`` stops the
            run.

    Raises:
        ValueError: If arguments are out of range.
        ImportError: If ``theory`` is wanted without cvxpy.

    Example::

        trainer = Trainer(callbacks=[MinorityCollapse(every_n_epochs=10)])

    Source:
        Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
        collapse in imbalanced training", PNAS 118(43).
    """

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
        on_error: OnError = "warn",
    ) -> None:
        self.minority_measure = MinorityMeasure(
            minority, head, class_counts, theory, pool, merged_above
        )
        super().__init__(
            self.minority_measure, probe, every_n_epochs, epochs, when, figures, on_error
        )
        self.counts = self._count_afresh()
        self.processes = 1

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """As of all callbacks; a fresh run counts afresh."""
        super().setup(trainer, pl_module, stage)
        self.processes = trainer.world_size
        if stage == "fit" and trainer.global_step == 0:
            self.counts = self._count_afresh()
        self.counts.rank = trainer.global_rank

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the declared class counts, and measure before training."""
        if self._counts:
            self.counts.declare(trainer)
        super().on_train_start(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the classes of a batch."""
        if self._counts:
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
        known = self.counts.complete if self.processes == 1 else self.counts.of_all_processes
        return super().state_dict() | {"class_counts": None if known is None else known.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with history and class counts of a checkpoint."""
        super().load_state_dict(state_dict)
        if state_dict.get("class_counts") is not None:
            self.counts.set_total(torch.tensor(state_dict["class_counts"]))

    @property
    def _counts(self) -> bool:
        """Whether training batches are counted."""
        return self.minority_measure.class_counts is None

    def _count_afresh(self) -> TrainingCounts:
        counts = TrainingCounts(self.probe.unpack if self.probe.source == "train" else None)
        self.minority_measure.counter = counts
        return counts
