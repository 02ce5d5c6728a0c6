"""Measuring a network once without a Trainer, for notebooks, checkpoints and scripts."""

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from lightning_nc.figures.canvas import Target
from lightning_nc.figures.plotting import Plot, plotted
from lightning_nc.measures.equi_separation import SeparationMeasure
from lightning_nc.measures.measure import Drawing, Evaluation, Measure, drawing_of
from lightning_nc.measures.measurement import Measurement, keyed, on_its_own
from lightning_nc.measures.neural_collapse import CollapseMeasure
from lightning_nc.measures.timeline import Timeline
from lightning_nc.network.points import Layers, Pool
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Answer


@dataclass(frozen=True, repr=False)
class NetworkMeasurement(Measurement):
    """The result of `measure`: the values of all measures, and their figures.

    Attributes:
        measures: What was measured: each measure with the name of the probe.
    """

    measures: Sequence[tuple[Measure, str]] = ()

    def drawings(self) -> dict[str, Drawing]:
        """Functions that draw the figures, by ``family/name``."""
        return {
            f"{each.family}/{name}": drawing
            for each, probe in self.measures
            for name, drawing in _drawings(each, Timeline(each.family, probe, [self])).items()
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
        return plotted(drawing_of(drawings, next(tagged, name)), ax)


@torch.inference_mode(False)
@torch.no_grad()
def measure(
    model: nn.Module,
    loader: Any,
    layers: Layers | None = "blocks",
    head: str | Literal[False] | None = None,
    pool: Pool = "auto",
    measures: Iterable[Any] | None = None,
) -> NetworkMeasurement:
    """Measure a network once, without a Trainer, and return what the callbacks would log.

    The network is left as it was: modes, buffers, gradients and random generators.

    Args:
        model: Any module that is called with inputs; it is measured on the device where it is.
        loader: A DataLoader or Dataset, which is read completely, or a `Probe` on one (to set
            ``samples_per_class``, ``unpack``, ``forward``, ``batch_norm``...). Keys contain the
            probe's name, ``data`` by default.
        layers: See `EquiSeparation`; None leaves out the law.
        head: See `NeuralCollapse`; False leaves out neural collapse.
        pool: Makes (N, d) features of layers and of the classifier's input.
        measures: What to measure instead of the law and neural collapse: any `Measure`, or
            callbacks, whose measures are used.

    Returns:
        A `Measurement` that holds the values of all measures under their keys, and has ``plot()``.

    Raises:
        TypeError: If data cannot be read or unpacked.
        ValueError: If layers, head, labels or features do not fit; the message says what was found
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
    probe = loader if isinstance(loader, Probe) else Probe(loader, "data", samples_per_class=None)
    if isinstance(probe.source, str):
        raise ValueError(
            f'Probe source "{probe.source}" is a Trainer\'s loader, but there is no Trainer. Give '
            'a Dataset or DataLoader: Probe(source=dataset, name="my_probe").'
        )
    if measures is None:
        chosen = _the_law_and_collapse(layers, head, pool)
    elif (layers, head, pool) == ("blocks", None, "auto"):
        chosen = [getattr(each, "measure", each) for each in measures]
    else:
        raise ValueError(
            "layers=, head= and pool= do not apply to measures=: give them to each measure."
        )
    if not chosen:
        raise ValueError("Nothing to measure: layers=None and head=False leave out both measures.")
    named = (layers, head, pool) != ("blocks", None, "auto")
    found = _found(model, probe, chosen, all_or_none=named)
    answers = [answer for _, answer, _ in found]
    evaluations = [evaluation for *_, evaluation in found]
    notes = [note for _, answer, evaluation in found for note in _notes(answer, evaluation)]
    for text in dict.fromkeys(notes):
        warnings.warn(f"measure(): {text}", RuntimeWarning, stacklevel=2)
    return NetworkMeasurement(
        epochs_completed=0,
        step=0,
        values=_values(found, probe.key),
        arrays={k: on_its_own(v) for each in evaluations for k, v in each.arrays.items()},
        counts=on_its_own(answers[0].counts),
        seconds=time.perf_counter() - started,
        stage="measure",
        classes=answers[0].class_names,
        pooling={name: words for each in answers for name, words in each.pooling.items()},
        measures=[(each, probe.key) for each, *_ in found],
    )


def _the_law_and_collapse(
    layers: Layers | None, head: str | Literal[False] | None, pool: Pool
) -> list[Measure]:
    law = [SeparationMeasure(layers, pool)] if layers is not None else []
    return [*law, CollapseMeasure(head, pool=pool)] if head is not False else [*law]


def _found(
    model: nn.Module, probe: Probe, measures: Sequence[Measure], all_or_none: bool
) -> list[tuple[Measure, Answer, Evaluation]]:
    """Measure in one pass of each kind; a measure that cannot be met is left out with a warning.

    Raises:
        Exception: If none of the measures can be met, or one of them if all are needed: why the
            first cannot.
    """
    answers: dict[int, Answer | Exception] = {}
    for kind in dict.fromkeys(each.passes for each in measures):
        of_kind = [n for n, each in enumerate(measures) if each.passes is kind]
        requests = [measures[n].request() for n in of_kind]
        runner = plain_runner(model, probe.forward)
        one_pass = kind(runner, lambda: probe.source, probe, requests, Processes())
        answers |= dict(zip(of_kind, one_pass.run(), strict=True))
    found: list[tuple[Measure, Answer, Evaluation]] = []
    failed: list[tuple[Measure, Exception]] = []
    for n, each in enumerate(measures):
        try:
            answer = answers[n]
            if isinstance(answer, Exception):
                raise answer
            found.append((each, answer, each.evaluate(answer)))
        except Exception as error:
            failed.append((each, error))
    if failed and (all_or_none or not found):
        raise failed[0][1]
    for each, failure in failed:
        why = f"measure() leaves out {each.title.lower()}: {failure}"
        warnings.warn(why, RuntimeWarning, stacklevel=3)
    return found


def _notes(answer: Answer, evaluation: Evaluation) -> list[str]:
    return [*answer.notes.values(), *evaluation.notes.values()]


def _values(found: Sequence[tuple[Measure, Answer, Evaluation]], probe: str) -> dict[str, float]:
    values: dict[str, float] = {}
    for each, _, evaluation in found:
        values |= keyed(each.family, probe, evaluation.values, evaluation.layers)
    return values


def _drawings(one: Measure, timeline: Timeline) -> dict[str, Drawing]:
    return one.draw(timeline) | one.draw_at_end(timeline)
