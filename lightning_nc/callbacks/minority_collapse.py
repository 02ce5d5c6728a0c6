"""Minority collapse, measured while a network trains."""

from collections.abc import Sequence
from typing import Any

import torch

from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.record import Figures, OnError
from lightning_nc.callbacks.schedule import When
from lightning_nc.callbacks.telling import tell_note
from lightning_nc.callbacks.training_counts import TrainingCounts
from lightning_nc.measures.minority_collapse import MinorityMeasure
from lightning_nc.measures.minority_notes import counts_note
from lightning_nc.measures.saved_history import is_count
from lightning_nc.network.points import Pool
from lightning_nc.passes.probe import Probe

_NO_EPOCH = "training ended before an epoch was counted from its first batch to its last"


class MinorityCollapse(MeasureCallback):
    """Callback that logs whether the classifier still tells minority classes apart.

    If some classes have few training samples, the classifier rows for them move closer together;
    beyond a finite imbalance they can coincide. Training is unchanged, bit for bit.

    Logged under these keys, with the name of the probe for ``{p}``:

    - ``minority/{p}/cos_weights``: Mean cosine between the classifier rows of minority classes; at
      1 these have merged.
    - ``minority/{p}/predicted_cos``: The layer-peeled model's prediction of cos_weights, at the
      measured class counts and energies.
    - ``minority/{p}/cos_means``: Mean cosine between the centred class means of minority classes.
    - ``minority/{p}/cos_majority_weights``: Mean cosine between the classifier rows of majority
      classes, for comparison.
    - ``minority/{p}/norm_ratio``: Mean norm of the rows of minority classes divided by that of
      majority classes.
    - ``minority/{p}/minority_accuracy``: Mean accuracy over the minority classes, on the probe.
    - ``minority/{p}/imbalance_ratio``: Mean training samples of majority classes divided by those
      of minority classes, as drawn in training.
    - ``minority/{p}/critical_ratio``: The imbalance above which all minority rows coincide in the
      layer-peeled model.
    - ``minority/{p}/energy_weights``: Mean squared norm of the classifier rows, E_W in the layer-
      peeled model.
    - ``minority/{p}/energy_features``: Mean squared norm of last-layer features, E_H in the layer-
      peeled model.
    - ``minority/{p}/energy_features_centered``: Mean squared norm of last-layer features about the
      mean of the class means.
    - ``minority/{p}/...``: ``epochs_completed``, ``seconds``, ``figure_seconds``, ``num_classes``,
      ``num_samples``, ``failures`` of each measurement.

    Cosines are -1/(K-1) on the simplex of balanced classes, and 1 where rows have merged.

    Class counts are those of the training batches in the last complete epoch. Before one is
    complete they are those that the dataset declares. The probe is stratified and does not affect
    them. By default they decide which classes are the minority: those below one clear gap between
    class sizes, else the rarest third, but never a class within a factor of 1.5 of the largest
    (`functional.minority_classes` has the rule). What needs a minority is logged once it is known;
    if there is none, as in balanced data, it is not logged, and one warning says so.

    With ``theory`` the layer-peeled model is solved for these counts and the measured energies (of
    features that are not centred). The model has no BatchNorm, bias or weight decay: its prediction
    is something to compare a network with, not a claim about it.

    Args:
        minority: The minority classes; by default they follow from the class counts.
        head: Name of the module that computes the logits, as in `NeuralCollapse`.
        class_counts: Training samples per class, if they cannot be counted in the batches.
        theory: Whether to log the prediction of the layer-peeled model; needs
            ``lightning-neural-collapse[theory]``.
        pool: Makes one feature vector per sample. ``"auto"`` keeps vectors, averages sequences over
            their tokens (without padding, if the inputs tell it) and nodes over their graph, and
            flattens feature maps, or averages them over their positions where flattening would take
            more than ``Probe(memory_mb=...)``. Or ``"flatten"``, `spatial_mean`, `first_token`,
            `masked_mean`, `last_token`, or a callable.
        merged_above: Value of ``cos_weights`` above which one warning (on W&B also an alert) says
            that minority classes have merged.
        probe: ``"train"``, ``"val"`` or ``"test"`` for the Trainer's data, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last one.
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: Whether to measure at the end of training epochs, ``"train_epoch_end"``, or of
            validation, ``"validation_end"``.
        figures: Which figures to log: by default those of the 1st, 2nd, 4th, 8th, ... measurement
            and of the last; ``"all"``, ``"last"`` or False.
        on_error: ``"warn"`` skips a measurement that fails and continues training; ``"raise"``
            stops the run.

    Raises:
        ValueError: If an argument is out of range.
        ImportError: If ``theory`` is requested and cvxpy is not installed.

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
        pool: Pool = "auto",
        merged_above: float = 0.95,
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: Figures = True,
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
        """Set up as `MeasureCallback` does; a fresh run counts from zero."""
        super().setup(trainer, pl_module, stage)
        self.processes = trainer.world_size
        if self.record.fresh:
            self.counts = self._count_afresh()
        self.counts.rank = trainer.global_rank

    def begin_training(self, trainer: Any) -> None:
        """Use the declared class counts."""
        if self._counts_batches:
            self.counts.declare(trainer)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the classes of a batch."""
        if self._counts_batches:
            if batch_idx == 0:  # Lightning may resume in the middle of an epoch
                self.counts.begin_epoch()
            self.counts.see(trainer, batch)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Complete the counts of an epoch after its last batch."""
        if trainer.is_last_batch:
            self.counts.end_epoch()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure as `MeasureCallback` does, and say if counts stayed unknown."""
        super().on_train_end(trainer, pl_module)
        if self._counts_batches and self.counts.complete is None and self.history:
            told = {key.rsplit("/", 1)[1]: each for key, each in self.history[-1].values.items()}
            tell_note(trainer, self.record, "counts", counts_note(told, _NO_EPOCH))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of `MeasureCallback` and the class counts."""
        known = self.counts.complete if self.processes == 1 else self.counts.of_all_processes
        return super().state_dict() | {"class_counts": None if known is None else known.tolist()}

    def load_parts(self, state: dict[str, Any]) -> list[str]:
        """Restore history, failures and class counts from a checkpoint."""
        lost, counts = super().load_parts(state), state.get("class_counts")
        if counts is None:
            return lost
        if not isinstance(counts, list) or not all(map(is_count, counts)):
            return [*lost, "the class counts"]
        self.counts.set_declared(torch.tensor(counts, dtype=torch.long))
        return lost

    @property
    def _counts_batches(self) -> bool:
        """Whether training batches are counted."""
        return self.minority_measure.class_counts is None

    def _count_afresh(self) -> TrainingCounts:
        unpack = self.probe.unpack if self.probe.source == "train" else None
        counts = TrainingCounts(unpack, self.probe.ignore_index)
        if self._counts_batches:
            self.minority_measure.counter = counts
        return counts
