"""Neural collapse, measured while a network trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.record import Figures, OnError
from lightning_nc.callbacks.schedule import When
from lightning_nc.figures import save_snapshots
from lightning_nc.measures.neural_collapse import (
    CollapseMeasure,
    first_without_error,
    snapshots_of,
)
from lightning_nc.network.points import Layers, Pool
from lightning_nc.passes.probe import Probe


class NeuralCollapse(MeasureCallback):
    """Callback that logs NC1 to NC4: whether features collapse to class means on a simplex.

    All quantities but accuracy tend to 0 in the terminal phase of training. Training is unchanged,
    bit for bit.

    Logged under these keys, with the name of the probe for ``{p}``:

    - ``nc/{p}/nc1``: Within-class variability, Tr(Sigma_W Sigma_B^+)/K: how far samples scatter
      about their class mean, relative to the distances between classes.
    - ``nc/{p}/nc2_equinorm_means``: Standard deviation (divisor K-1) of the norms of the class
      means, divided by their mean: 0 if all are equally far from their centre.
    - ``nc/{p}/nc2_equinorm_weights``: Standard deviation (divisor K-1) of the norms of the
      classifier rows, divided by their mean.
    - ``nc/{p}/nc2_equiangularity_means``: Population standard deviation, over all pairs, of the
      cosines between class means: 0 if all pairs are equally far apart.
    - ``nc/{p}/nc2_equiangularity_weights``: Population standard deviation, over all pairs, of the
      cosines between classifier rows.
    - ``nc/{p}/nc2_maximal_angle_means``: Mean distance of the cosines between class means from
      -1/(K-1), the widest possible angle.
    - ``nc/{p}/nc2_maximal_angle_weights``: Mean distance of the cosines between classifier rows
      from -1/(K-1).
    - ``nc/{p}/nc2_etf_error``: Distance of the class means from a simplex, in norms and angles
      together.
    - ``nc/{p}/nc3``: Squared distance between classifier and class means, each a matrix scaled to
      norm 1.
    - ``nc/{p}/nc4``: Share of samples that the classifier does not assign to the nearest class
      mean.
    - ``nc/{p}/gnc2``: Population standard deviation, over all pairs, of the logarithms of the
      distances between class means, scaled to norm 1: 0 for a simplex, small if the means are
      spread evenly, even if classes outnumber dimensions.
    - ``nc/{p}/unc3``: Population standard deviation, over classes, of the cosine between classifier
      row and class mean.
    - ``nc/{p}/accuracy``: Share of the probe's samples that the classifier gets right.
    - ``nc/{p}/cdnv``: Class-distance normalised variance: variance within two classes divided by
      the squared distance between their means, averaged over all pairs.
    - ``nc_layers/{p}/{layer}/nc1``: NC1 of a layer: how far samples scatter about their class mean
      there.
    - ``nc_layers/{p}/{layer}/cdnv``: CDNV of a layer.
    - ``nc_layers/{p}/{layer}/nc4``: NC4 of a layer: share of samples that the classifier does not
      assign to the nearest class mean there.
    - ``nc/{p}/...``: ``epochs_completed``, ``seconds``, ``figure_seconds``, ``num_classes``,
      ``num_samples``, ``failures`` of each measurement.

    The centred means of two classes are opposite whatever is learned, so their NC2 is undefined
    (NaN).

    Args:
        head: Name of the module that computes the logits; by default the last module to run whose
            weight has a row per class (or one row, for two classes). Its inputs are the last-layer
            features. False measures a network without a head, such as an encoder: its last-layer
            features are its output, or the input of a projection head.
        layers: Layers at which NC1, CDNV and NC4 are logged as well, each from the class means of
            that layer: ``"blocks"``, names, globs or ``{name: callable}``, as in `EquiSeparation`;
            None for none. An `EquiSeparation` with equal layers, ``pool`` and ``probe`` shares the
            pass, and the network does not run again. With hundreds of classes, comparing
            each sample with all class means adds about half to the time of the measurement.
        pool: Makes one feature vector per sample. ``"auto"`` keeps vectors, averages sequences over
            their tokens (without padding, if the inputs tell it) and nodes over their graph, and
            flattens feature maps, or averages them over their positions where flattening would take
            more than ``Probe(memory_mb=...)``. Or ``"flatten"``, `spatial_mean`, `first_token`,
            `masked_mean`, `last_token`, or a callable.
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

    Example::

        trainer = Trainer(callbacks=[NeuralCollapse(layers="blocks", every_n_epochs=10)])

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40). For layers, the nearest-class-centre mismatch is that
        of Ben-Shaul & Dekel (2022), "Nearest class-center simplification through intermediate
        layers": the class that the network decides for is compared, not the label.
    """

    def __init__(
        self,
        head: str | Literal[False] | None = None,
        layers: Layers | None = None,
        pool: Pool = "auto",
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: Figures = True,
        on_error: OnError = "warn",
    ) -> None:
        measure = CollapseMeasure(head, layers, pool)
        super().__init__(measure, probe, every_n_epochs, epochs, when, figures, on_error)

    @property
    def terminal_epoch(self) -> float | None:
        """The first measured epoch at which the classifier made no error on the probe, or None."""
        fitted = self.record.fitted()
        first = first_without_error(fitted.series(f"{self.record.prefix}accuracy"))
        return None if first is None else fitted[first].epochs_completed

    def save_animation(self, path: str | Path, frames_per_second: int = 4) -> None:
        """Write an animation of the snapshots of all measurements.

        Args:
            path: The GIF to write, such as ``"collapse.gif"``.
            frames_per_second: Speed of the animation; the last frame is held for two more seconds.

        Raises:
            ValueError: If there is no measurement of three or more classes.
        """
        taken = snapshots_of(self.record.timeline_of(self.history)) if self.history else []
        if not taken:
            raise ValueError(
                "There are no snapshots: nothing has been measured yet, or only two classes. Fit "
                "first, on three or more classes."
            )
        save_snapshots(Path(path), taken, frames_per_second)
