"""Neural collapse, watched while a network trains."""

from collections.abc import Sequence
from pathlib import Path

from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.record import OnError
from lightning_nc.callbacks.schedule import When
from lightning_nc.figures import save_snapshots
from lightning_nc.measures.neural_collapse import CollapseMeasure, snapshots_of, terminal_epoch
from lightning_nc.network.points import Pool
from lightning_nc.passes.probe import Probe


class NeuralCollapse(MeasureCallback):
    """Log NC1 to NC4: whether features collapse to class means, and these to a simplex.

    All quantities but accuracy tend to 0 in the terminal phase of training. Training is left as it
    was, bit by bit.

    Logged under these keys, with the name of the probe for ``{p}``:

    - ``nc/{p}/nc1``: Within-class variability, Tr(Sigma_W Sigma_B^+)/K: how far samples scatter
      about their class mean, against the distances between classes.
    - ``nc/{p}/nc2_equinorm_means``: Spread of the norms of the class means: 0 if all are equally
      far from the centre.
    - ``nc/{p}/nc2_equinorm_weights``: Spread of the norms of the classifier's rows.
    - ``nc/{p}/nc2_equiangularity_means``: Spread of the angles between class means: 0 if all pairs
      are equally far apart.
    - ``nc/{p}/nc2_equiangularity_weights``: Spread of the angles between the classifier's rows.
    - ``nc/{p}/nc2_maximal_angle_means``: Distance of the cosines between class means from -1/(K-1),
      the widest angle possible.
    - ``nc/{p}/nc2_maximal_angle_weights``: Distance of the cosines between the classifier's rows
      from -1/(K-1).
    - ``nc/{p}/nc2_etf_error``: Distance of the class means, norms and angles together, from a
      simplex.
    - ``nc/{p}/nc3``: Distance between the classifier's rows and the class means, both scaled to
      unit size.
    - ``nc/{p}/nc4``: Share of samples that the classifier does not give to the nearest class mean.
    - ``nc/{p}/accuracy``: Share of the probe's samples that the classifier gets right.
    - ``nc/{p}/cdnv``: Class-distance normalised variance: variance within two classes by the
      squared distance of their means, over all pairs.
    - ``nc/{p}/...``: ``epochs_completed``, ``seconds``, ``failures`` of each measurement.

    For two classes the means are opposite whatever is learned: their NC2 is NaN.

    Args:
        head: Name of the classifier; by default the last module to run with a weight row per class
            (or one row: two classes). Its inputs are the last-layer features.
        pool: Makes (N, d) features of the classifier's input, if that is a sequence.
        probe: ``"train"``, ``"val"``, ``"test"``, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last.
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: ``"train_epoch_end"`` or ``"validation_end"``.
        figures: Whether to log figures.
        on_error: ``"warn"`` skips a measurement that fails and trains on, ``"raise"`` stops the
            run.

    Example::

        trainer = Trainer(callbacks=[NeuralCollapse(every_n_epochs=10)])

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """

    def __init__(
        self,
        head: str | None = None,
        pool: Pool | None = None,
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: bool = True,
        on_error: OnError = "warn",
    ) -> None:
        measure = CollapseMeasure(head, pool)
        super().__init__(measure, probe, every_n_epochs, epochs, when, figures, on_error)

    @property
    def terminal_epoch(self) -> float | None:
        """The first measured epoch at which the classifier made no error on the probe."""
        fitted = self.record.fitted()
        return terminal_epoch(self.record.timeline(fitted[-1])) if fitted else None

    def save_animation(self, path: str | Path, frames_per_second: int = 4) -> None:
        """Write the snapshots of all measurements as a film: ``"collapse.gif"``.

        Args:
            path: The GIF to write.
            frames_per_second: How fast it runs; the last frame is held for two seconds.

        Raises:
            ValueError: If there is no measurement of three classes or more.
        """
        taken = [one for m in self.history for one in snapshots_of(self.record.timeline(m))[-1:]]
        if not taken:
            raise ValueError(
                "There are no snapshots: nothing has been measured yet, or of two classes only."
            )
        save_snapshots(Path(path), taken, frames_per_second)
