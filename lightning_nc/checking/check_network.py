"""A dry run: what the callbacks would measure on a network and data, before any training."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_nc.callbacks.all_families import callbacks_for
from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.training_counts import expected_counts
from lightning_nc.checking.findings import Check, Finding
from lightning_nc.checking.timing import Pace, pace_of
from lightning_nc.functional.minority_collapse import minority_classes
from lightning_nc.measures.given import probe_given, request_of, require_module
from lightning_nc.measures.minority_collapse import MinorityMeasure
from lightning_nc.measures.minority_notes import NO_MINORITY
from lightning_nc.network.class_names import class_names
from lightning_nc.network.labels import dataset_labels
from lightning_nc.network.runner import Runner, plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.gradient_cost import expected_seconds, number_of_directions
from lightning_nc.passes.measuring_pass import MeasuringPass
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Answer, KernelAnswer, KernelRequest, Request
from lightning_nc.passes.sweeps import Reading
from lightning_nc.wording import shown


class _DryRun(MeasuringPass):
    """Settles on a plan and times a batch, and measures nothing."""

    pace: Pace
    names: Sequence[str] | None
    labels: Tensor | None  # of all samples, if the dataset declares them

    def _answers(self) -> list[Answer | Exception]:
        with self._settled() as (plan, samples):
            reading = Reading(samples, plan.batches, self.probe, of_positions=plan.of_positions)
            self.pace = pace_of(self.runner, reading)
            self.names = class_names(samples.dataset, int(plan.classes[-1]))
            self.labels = dataset_labels(samples.dataset) if plan.declared else None
        return []


@torch.inference_mode(False)
@torch.no_grad()
def check(model: nn.Module, loader: Any, callbacks: Iterable[Any] | None = None) -> Check:
    """Find out, before any training, what the callbacks would measure and what it costs.

    A first batch is traced and timed, and labels are read as far as the probe needs them.
    `LocalElasticity` is tried, with gradients of one output. Network and data are left as they
    were.

    Args:
        model: Any module that is called with inputs; it is checked on the device where it is.
        loader: Data as `measure` takes them, of which a `Probe` draws 100 samples per class as it
            does for callbacks; or a `Probe` (not on ``"train"``, for which a Trainer is needed).
        callbacks: Those to check on these data, with their options; by default all families. Other
            callbacks of Lightning are passed over.

    Returns:
        What was found. It prints as a table, also in a notebook.

    Raises:
        TypeError: If the model is no module, or data cannot be read, unpacked, or given to it.
        ValueError: If there is something else among ``callbacks``, or none that measures, or if
            labels do not fit; the message says what was found and what to do.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.randn(30, 4), torch.arange(3).repeat(10))
        >>> found = check(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), data)
        >>> found.layers, found.head, found.counts
        (['input', '1'], '2', {0: 10, 1: 10, 2: 10})
        >>> [each.name for each in found.families if not each.applies]  # classes are balanced
        ['MinorityCollapse']
    """
    require_module(model)
    probe = probe_given(loader, model)
    chosen = _ours(callbacks_for(probe) if callbacks is None else callbacks)
    runner = plain_runner(model, probe.forward)
    shared = [each for each in chosen if each.measure.passes is GeometryPass]
    requests = [request_of(each.measure) for each in shared]
    dry = _DryRun(runner, lambda: probe.source, probe, requests, Processes())
    dry.run()
    assert dry.plan is not None
    families = []
    for each in chosen:
        if each not in shared:
            families.append(_tried(each, runner, probe))
            continue
        failure = dry.failed.get(shared.index(each))
        why_not = str(failure) if failure else _no_minority(each, probe.source, dry.labels)
        families.append(Finding(each.record.name, why_not))
    return Check(families, dry.names, dry.pace, probe, dry.plan._replace(failures={}))


def _ours(callbacks: Any) -> list[MeasureCallback]:
    """Those of some callbacks, or of one alone, that measure.

    Raises:
        ValueError: If there is none, or something else than a callback.
    """
    listed = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for each in listed:
        if isinstance(each, type) or not hasattr(each, "on_train_start"):  # a hook of Lightning
            raise ValueError(
                f"callbacks must be a list of callbacks such as NeuralCollapse(), got "
                f"{shown(each)}; a measure becomes one by MeasureCallback(measure)."
            )
    found = [each for each in listed if isinstance(each, MeasureCallback)]
    if not found:
        raise ValueError(
            f"None of callbacks={shown(listed)} measures anything: give one, as NeuralCollapse()."
        )
    return found


def _no_minority(callback: MeasureCallback, source: Any, labels: Tensor | None) -> str:
    """Why minority collapse has nothing to compare; empty for other families."""
    measure = callback.measure
    if not isinstance(measure, MinorityMeasure) or measure.minority is not None:
        return ""
    given = measure.class_counts
    counts = None if given is None else torch.tensor(given)
    if counts is None and labels is not None:
        counts = expected_counts(source, labels)
    if counts is None or bool(minority_classes(counts[counts > 0]).any()):
        return ""  # unknown counts will be known when training has counted classes
    return f"{NO_MINORITY}."


def _tried(callback: MeasureCallback, runner: Runner, probe: Probe) -> Finding:
    """Try a callback whose pass is its own, and time it; of several outputs, one is enough."""
    probe = replace(probe, batch_norm=callback.probe.batch_norm)
    try:
        request = callback.measure.request()
        kernel = request.kernel
        if kernel and not callable(kernel.outputs) and kernel.parameters != "last_layer":
            request = request._replace(kernel=kernel._replace(outputs=1))
        once = _timed(callback, request, runner, probe)
        # the first time included the plan, and what torch does only once
        again = _timed(callback, request, runner, probe, once.plan)
    except Exception as error:
        return Finding(callback.record.name, str(error))
    others = 0.0 if kernel is None else _seconds_of_others(kernel, again.kernel)
    return Finding(callback.record.name, seconds=again.seconds + others)


def _seconds_of_others(wanted: KernelRequest, found: KernelAnswer | None) -> float:
    """Estimate how long all output directions but one take."""
    if found is None:
        return 0.0
    others = number_of_directions(wanted, found.num_outputs) - 1
    return expected_seconds(wanted, others, found.seconds_each)


class _Timed(NamedTuple):
    """A measurement that was tried.

    Attributes:
        seconds: How long it took.
        kernel: What it found, if gradients are compared.
        plan: Its plan.
    """

    seconds: float
    kernel: KernelAnswer | None
    plan: Plan | None


def _timed(
    callback: MeasureCallback,
    request: Request,
    runner: Runner,
    probe: Probe,
    plan: Plan | None = None,
) -> _Timed:
    """Measure once, and forget the values.

    Raises:
        Exception: If it cannot be measured.
    """
    one = callback.measure.passes(runner, lambda: probe.source, probe, [request], Processes(), plan)
    started = time.perf_counter()
    (answer,) = one.run()
    if isinstance(answer, Exception):
        raise answer
    return _Timed(time.perf_counter() - started, answer.kernel, one.plan)
