"""Measuring a network once without a Trainer, for notebooks, checkpoints and scripts."""

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from lightning_nc.figures.canvas import Target
from lightning_nc.figures.plotting import Plot, plotted
from lightning_nc.measures.equi_separation import SeparationMeasure
from lightning_nc.measures.given import measures_given, probe_given, require_module
from lightning_nc.measures.measure import Drawing, Measure, drawing_of
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.neural_collapse import CollapseMeasure
from lightning_nc.measures.progress import passes_shown
from lightning_nc.measures.timeline import Timeline
from lightning_nc.measures.together import Found, measured_together
from lightning_nc.network.points import Layers, Pool
from lightning_nc.network.runner import plain_runner

_DEFAULTS = ("blocks", None, "auto")  # layers, head and pool


@dataclass(frozen=True, repr=False)
class NetworkMeasurement(Measurement):
    """The result of `measure`: the values of all measures, and their figures.

    Attributes:
        arrays: Tensors behind the figures, under keys as those of the values, such as
            ``"nc/data/plane"``, since several measures may have arrays of one name.
        measures: What was measured: each measure with its own measurement, of which its figures
            are drawn, and whose arrays have their plain names.
    """

    measures: Sequence[tuple[Measure, Timeline]] = ()

    def drawings(self) -> dict[str, Drawing]:
        """Functions that draw the figures, by ``family/name``."""
        return {
            f"{each.family}/{name}": drawing
            for each, timeline in self.measures
            for name, drawing in (each.draw(timeline) | each.draw_at_end(timeline)).items()
        }

    def plot(self, name: str | None = None, ax: Target = None) -> Plot:
        """Draw a figure, which a notebook shows.

        Args:
            name: Name of a figure, such as ``"law"``, or ``"nc/cosines"`` if several measures have
                a figure of that name; by default the first figure.
            ax: Axes to draw on, as many as the figure has; by default those of a new figure.

        Returns:
            The matplotlib ``Figure``, and its ``Axes`` or an array of them.

        Raises:
            ValueError: If there is no such figure, or it has another number of axes.
        """
        drawings = self.drawings()
        tagged = (tag for tag in drawings if tag.partition("/")[2] == name)
        known = [figure for each, _ in self.measures for figure in each.figures]
        return plotted(drawing_of(drawings, next(tagged, name), known), ax)


@torch.inference_mode(False)
@torch.no_grad()
def measure(
    model: nn.Module,
    loader: Any,
    layers: Layers | None = "blocks",
    head: str | Literal[False] | None = None,
    pool: Pool = "auto",
    measures: Any = None,
    progress: bool | None = None,
) -> NetworkMeasurement:
    """Measure a network once, without a Trainer, and return what the callbacks would log.

    The network is left as it was: modes, buffers, gradients and random generators.

    Args:
        model: Any module that is called with inputs; it is measured on the device where it is. Of
            one that Fabric or ``DistributedDataParallel`` has wrapped, the network inside is
            measured, by this process alone.
        loader: What is read completely: a DataLoader, also as Fabric or Accelerate has prepared it;
            a Dataset; a list of batches; ``(X, y)`` as tensors or arrays. Or a `Probe` on a loader
            or dataset (to set ``samples_per_class``, ``unpack``, ``forward``, ``batch_norm``...).
            Keys contain the probe's name, ``data`` by default.
        layers: See `EquiSeparation`; None leaves out the law.
        head: See `NeuralCollapse`; False leaves out neural collapse.
        pool: Makes (N, d) features of layers and of the classifier's input.
        measures: What to measure instead of the law and neural collapse: a `Measure` or several, or
            callbacks, whose measures are used. ``measures=callbacks_for()`` measures all families.
        progress: Whether to count passes through the network on a line, from the first second on;
            by default only where there is a terminal or notebook.

    Returns:
        A `Measurement` that holds the values of all measures under their keys, and has ``plot()``.

    Raises:
        TypeError: If the model is no module, or data cannot be read, unpacked, or given to it.
        ValueError: If there is something else among ``measures``, if two measures have the same
            keys, or layers, head, labels or features do not fit; the message says what was found
            and what to do. If none of these is given, a measure that does not fit is left out with
            a warning, unless none fits.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> inputs = torch.tensor([[2.0], [4.0], [-2.0], [-4.0]])
        >>> data = TensorDataset(inputs, torch.tensor([0, 0, 1, 1]))
        >>> model = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Linear(1, 2))
        >>> values = measure(model, data, head=False).values
        >>> [round(values[f"separation_layers/data/{layer}"], 6) for layer in ("input", "0")]
        [0.111111, 0.222222]

        At the input the means are +3 and -3 and the variance is 1: D = 1/9. After the ReLU the
        means are 3 and 0 and the variances 1 and 0: the mean variance 1/2 is divided by the squared
        half distance 9/4.
    """
    started = time.perf_counter()
    require_module(model)
    probe = probe_given(loader, model, samples_per_class=None)
    chosen = _chosen(measures, layers, head, pool)
    with passes_shown(progress) as advance:
        runner = plain_runner(model, probe.forward, advance)
        outcomes = measured_together(runner, probe, chosen)
    found = [each for each in outcomes if isinstance(each, Found)]
    failed = [(m, e) for m, e in zip(chosen, outcomes, strict=True) if isinstance(e, Exception)]
    if failed and (not found or (layers, head, pool) != _DEFAULTS):
        raise failed[0][1]
    texts = [f"measure() leaves out {each.title.lower()}: {why}" for each, why in failed]
    texts += [f"measure(): {note}" for each in found for note in each.notes]
    for text in dict.fromkeys(texts):
        warnings.warn(text, RuntimeWarning, stacklevel=4)  # two frames are of the decorators
    return _all_of(found, probe.key, time.perf_counter() - started)


def _chosen(
    measures: Any, layers: Layers | None, head: str | Literal[False] | None, pool: Pool
) -> list[Measure]:
    """The measures that are given; by default the law and neural collapse."""
    chosen: list[Measure] = []
    if measures is None:
        chosen += [SeparationMeasure(layers, pool)] if layers is not None else []
        chosen += [CollapseMeasure(head, pool=pool)] if head is not False else []
    elif (layers, head, pool) == _DEFAULTS:
        chosen = measures_given(measures)
    else:
        raise ValueError(
            "layers=, head= and pool= do not apply to measures=: give them to each measure."
        )
    if not chosen:
        why = "layers=None and head=False leave out both measures"
        raise ValueError(f"Nothing to measure: {why if measures is None else 'measures is empty'}.")
    for family, times in Counter(each.family for each in chosen).items():
        if times > 1:
            raise ValueError(
                f"{times} of the measures would have the keys {family}/...: measure each of them "
                "by a call of its own."
            )
    return chosen


def _all_of(found: Sequence[Found], probe: str, seconds: float) -> NetworkMeasurement:
    """All measures as one measurement."""
    when: dict[str, Any] = {
        "epochs_completed": 0,
        "step": 0,
        "stage": "measure",
        "seconds": seconds,
    }
    own = [(each.measure, each.measurement(probe, **when)) for each in found]
    # local elasticity is of few samples
    largest = max((each for _, each in own), key=lambda each: int(each.counts.sum()))
    return NetworkMeasurement(
        values={key: value for _, each in own for key, value in each.values.items()},
        arrays={
            f"{measure.family}/{probe}/{name}": array
            for measure, each in own
            for name, array in each.arrays.items()
        },
        counts=largest.counts,
        classes=largest.classes,
        pooling={layer: words for _, each in own for layer, words in each.pooling.items()},
        measures=[(measure, Timeline(measure.family, probe, [each])) for measure, each in own],
        **when,
    )
