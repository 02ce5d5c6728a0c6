"""The law of equi-separation, measured while a network trains."""

import warnings
from collections.abc import Sequence
from functools import partial

import torch

from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.record import Figures, OnError
from lightning_nc.callbacks.schedule import When
from lightning_nc.figures import separation_comparison_figure
from lightning_nc.figures.canvas import Target
from lightning_nc.figures.plotting import Plot, plotted
from lightning_nc.measures.equi_separation import SeparationMeasure
from lightning_nc.network.points import Layers, Pool
from lightning_nc.passes.probe import Probe


class EquiSeparation(MeasureCallback):
    """Callback that logs how well each layer separates the classes, and the law ``D_t ~ c rho^t``.

    In a well-trained classifier every layer multiplies the separation fuzziness
    ``D = Tr(SS_W SS_B^+)`` by about the same ratio rho. Training is unchanged, bit for bit.

    Logged under these keys, with the name of the probe for ``{p}``:

    - ``separation/{p}/rho``: Every layer multiplies the separation fuzziness D by about this
      factor.
    - ``separation/{p}/pearson_r``: Correlation of ln D with depth: how evenly the layers
      contribute.
    - ``separation/{p}/half_life``: Number of layers over which D halves, ln 2 / ln(1/rho).
    - ``separation/{p}/total``: What remains of D after all layers: D of the last layer divided by D
      of the first.
    - ``separation_layers/{p}/{layer}``: Separation fuzziness: noise within classes along the
      directions in which class means differ, in units of their differences.
    - ``separation/{p}/...``: ``epochs_completed``, ``seconds``, ``figure_seconds``,
      ``num_classes``, ``num_samples``, ``failures`` of each measurement.

    Args:
        layers: ``"blocks"`` (see `lightning_nc.find_blocks`), names or globs as in
            ``named_modules()``, or ``{name: callable}`` where the callable turns the module's
            output into (N, d) features; ``"input"`` is the raw input (``"raw_input"`` if a module
            is called ``input``). In a glob, ``*`` stops at a dot and ``**`` does not:
            ``"encoder.layer.*"`` matches each layer once.
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

        trainer = Trainer(callbacks=[EquiSeparation(every_n_epochs=10)])

    Source:
        He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
    """

    def __init__(
        self,
        layers: Layers = "blocks",
        pool: Pool = "auto",
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: Figures = True,
        on_error: OnError = "warn",
    ) -> None:
        measure = SeparationMeasure(layers, pool)
        super().__init__(measure, probe, every_n_epochs, epochs, when, figures, on_error)

    def plot_against(self, *others: "EquiSeparation", ax: Target = None) -> Plot:
        """Compare the last D of this callback with that of others: on other data, in other runs.

        Runs on the same data are numbered in the legend; ``axes.legend(["Adam", "SGD"])`` names
        them.

        Args:
            others: Callbacks on the same layers.
            ax: Axes to draw on; by default those of a new figure.

        Returns:
            The matplotlib ``Figure``, and its ``Axes``.

        Raises:
            ValueError: If a callback has measured nothing yet, or has other layers.

        Warns:
            RuntimeWarning: If the numbers of samples per class differ, since D depends on them.
        """
        names, compared = _layers_of(self), (self, *others)
        for each in compared:
            if not each.history or _layers_of(each) != names:
                raise ValueError(
                    f"EquiSeparation on '{each.probe.key}' has measured nothing yet, or has other "
                    f"layers than the one on '{self.probe.key}'. Fit first, or give both the same "
                    "layers=."
                )
        fuzziness = [each.history[-1].arrays["fuzziness"] for each in compared]
        drawn = dict(zip(_numbered([*map(_compared, compared)]), fuzziness, strict=True))
        if any(not torch.equal(o.history[-1].counts, self.history[-1].counts) for o in others):
            warnings.warn(
                "D depends on the number of samples per class and is not comparable here: "
                f"{'; '.join(drawn)}. Give the probes the same Probe(samples_per_class=...), small "
                "enough for every class of every data set.",
                RuntimeWarning,
                stacklevel=2,
            )
        title = "Separation fuzziness, compared"
        return plotted(partial(separation_comparison_figure, names, drawn, title), ax)


def _layers_of(callback: EquiSeparation) -> list[str]:
    """Return the layers of the last measurement, in order of depth."""
    return callback.record.timeline().layers if callback.history else []


def _compared(callback: EquiSeparation) -> str:
    """Return a label: the probe, its number of samples per class, and the epoch."""
    last = callback.history[-1]
    low, high = int(last.counts.min()), int(last.counts.max())
    each = f"{low}" if low == high else f"{low} to {high}"
    return f"{callback.probe.key}, {each} per class, {last.when}"


def _numbered(labels: Sequence[str]) -> list[str]:
    """Labels with numbers to those that are there several times."""
    return [
        f"{label} ({labels[: place + 1].count(label)})" if labels.count(label) > 1 else label
        for place, label in enumerate(labels)
    ]
