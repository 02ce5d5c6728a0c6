"""A measurement without a Trainer: notebooks, checkpoints, scripts."""

import time
import warnings
from typing import Any, Literal

import torch
from torch import nn

from lightning_nc.callbacks.equi_separation import evaluate_separation
from lightning_nc.callbacks.geometry_pass import GeometryPass
from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.neural_collapse import evaluate_collapse
from lightning_nc.callbacks.processes import Processes
from lightning_nc.callbacks.request import Request
from lightning_nc.probe.data import Probe
from lightning_nc.probe.layers import Layers, Pool
from lightning_nc.probe.runner import plain_runner


@torch.inference_mode(False)
@torch.no_grad()
def measure(
    model: nn.Module,
    loader: Any,
    layers: Layers | None = "blocks",
    head: str | Literal[False] | None = None,
    pool: Pool | None = None,
) -> Measurement:
    """Measure a network once: what the callbacks log, without a Trainer.

    The network is left as it was: modes, buffers, gradients and random generators.

    Args:
        model: Any module that is called with inputs; measured on the device where it is.
        loader: A DataLoader or Dataset, of which everything is read, or a `Probe` on one (for
            ``samples_per_class``, ``unpack``, ``batch_norm``...). Keys carry the probe's name,
            ``data`` by default.
        layers: As of `EquiSeparation`; None leaves the law out.
        head: As of `NeuralCollapse`; False leaves neural collapse out.
        pool: Makes (N, d) features of layers and of the classifier's input.

    Returns:
        `Measurement` with the keys of both callbacks.

    Raises:
        TypeError: If data cannot be read or unpacked.
        ValueError: If layers, head, labels or features are not what they should be; each message
            says what was found and the way out.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> inputs = torch.tensor([[2.0], [4.0], [-2.0], [-4.0]])
        >>> data = TensorDataset(inputs, torch.tensor([0, 0, 1, 1]))
        >>> model = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Linear(1, 2))
        >>> values = measure(model, data, head=False).values
        >>> [round(values[f"separation_layers/data/{layer}"], 6) for layer in ("input", "0")]
        [0.111111, 0.222222]

        Before: means +3 and -3, variance 1: 1/9. After ReLU: means 3 and 0, variances 1 and 0; the
        mean variance 1/2 against the squared half distance 9/4.
    """
    started = time.perf_counter()
    probe = loader if isinstance(loader, Probe) else Probe(loader, "data", samples_per_class=None)
    requests = [Request(layers=layers, pool=pool)] if layers is not None else []
    if head is not False:
        requests.append(Request(pool=pool, classifier=True, head=head))
    if not requests:
        raise ValueError("Nothing to measure: layers=None leaves out the law, head=False the rest.")
    if isinstance(probe.source, str):
        raise ValueError(
            f'Probe source "{probe.source}" is a Trainer\'s loader, and there is no Trainer: '
            'give a Dataset or DataLoader, Probe(source=dataset, name="my_probe").'
        )
    runner = plain_runner(model)
    answers = GeometryPass(runner, lambda: probe.source, probe, requests, Processes()).run()
    evaluations = [
        evaluate_collapse(answer.classifier, probe.key)
        if answer.classifier is not None
        else evaluate_separation(answer.layers, probe.key)
        for answer in answers
    ]
    for each in evaluations:
        for note in each.notes.values():
            warnings.warn(f"measure(): {note}", RuntimeWarning, stacklevel=2)
    return Measurement(
        epochs_completed=0,
        step=0,
        values={key: value for each in evaluations for key, value in each.values.items()},
        arrays={k: array.cpu() for each in evaluations for k, array in each.arrays.items()},
        counts=answers[0].counts.cpu(),
        seconds=time.perf_counter() - started,
        stage="measure",
    )
