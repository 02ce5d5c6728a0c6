"""A pass that compares the gradients of a few samples, with one vote and one reduction."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.gradient_kernel import last_layer_kernel, output_directions
from lightning_nc.functional.input_checks import all_finite
from lightning_nc.functional.loss_gradients import loss_gradients
from lightning_nc.functional.powers_of_two import scale_of
from lightning_nc.guards.generators import seed_generators
from lightning_nc.guards.torch_internals import tree_leaves
from lightning_nc.network.answers import answer_of
from lightning_nc.network.batches import ProbeBatch
from lightning_nc.network.capture import capture
from lightning_nc.network.head import Head
from lightning_nc.network.nesting import tensors_in
from lightning_nc.network.parameters import Arguments
from lightning_nc.network.points import Point
from lightning_nc.network.samples import Samples
from lightning_nc.passes.agreement import MeasurementError
from lightning_nc.passes.gradient_cost import announcement, expected_seconds
from lightning_nc.passes.measuring_pass import MeasuringPass
from lightning_nc.passes.plan import Plan, Wanted
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Answer, DoesNotApply, KernelAnswer, KernelRequest
from lightning_nc.passes.sum_checks import why_not_finite
from lightning_nc.passes.sums import Sums
from lightning_nc.passes.sweeps import Reading, labelled_batches
from lightning_nc.tangent.differentiable_network import Network
from lightning_nc.tangent.kernel import output_changes, tangent_kernel


class _Share(NamedTuple):
    """What a process knows after its share of the work: the answer, but for the sums of all."""

    plan: Plan
    sums: Sums
    answer: KernelAnswer


class GradientPass(MeasuringPass):
    """Compares gradients of the same samples; each process takes a share of the directions."""

    def _answers(self) -> list[Answer | Exception]:
        """Compare gradients for each request; usually there is one."""
        return [self._answer(n, each.kernel) for n, each in enumerate(self.requests)]

    def _answer(self, number: int, wanted: KernelRequest | None) -> Answer | Exception:
        local = self._agree(partial(self._compare, number, wanted))
        if local is None or number in self.failed:
            return self.failed[number]
        plan, sums, answer = local
        totals = sums.over_processes(self.processes.all_reduce)
        asked = wanted is not None and wanted.relative_similarity
        moves = totals["squared moves"].sqrt() if asked else None
        answer = answer._replace(kernel=totals["kernel"], moves=moves)
        places = torch.searchsorted(plan.classes, answer.labels)
        counts = places.bincount(minlength=plan.num_classes)
        names = plan.class_names
        return Answer({}, None, counts, kernel=answer, classes=plan.classes, class_names=names)

    def _compare(self, number: int, wanted: KernelRequest | None) -> _Share | None:
        """Compute the share of this process; None if the request cannot be met."""
        if number in self.failed:
            return None
        try:
            return self._share(number, wanted)
        except MeasurementError:
            raise  # the others know
        except Exception as error:
            self.failed[number] = error
            return None

    def _share(self, number: int, wanted: KernelRequest | None) -> _Share | None:
        require_own_outputs(self.probe)
        with self._settled() as (plan, samples):
            place = plan.wanted[number]
            if place is None or number in self.failed:
                return None
            if wanted is None:
                raise ValueError(
                    "A GradientPass compares gradients, and none are requested. Give "
                    "Request(kernel=KernelRequest()), or leave passes= out of the measure."
                )
            if plan.of_positions:
                raise DoesNotApply(
                    "Gradients of single samples are compared, and here labels are of positions in "
                    "sequences or images. Give LocalElasticity a probe with one label per sample: "
                    "probe=Probe(source, name=..., unpack=...)."
                )
            batch = chosen_samples(plan, wanted, self.probe)
            inputs, labels = self._read(samples, batch)
            m = len(labels)
            sums = self._sums({"kernel": (m, m), "squared moves": (m, m)})
            with self.runner.precision():
                if wanted.parameters == "last_layer":
                    answer = self._add_last_layer(sums, place, inputs, labels)
                else:
                    of_all = partial(answer_of, columns=plan.num_logits)
                    answer = self._add_share(sums, wanted, of_all, batch.number, inputs, labels)
        return _Share(plan, sums, answer)

    def _read(self, samples: Samples, batch: ProbeBatch) -> tuple[Any, Tensor]:
        """Inputs and labels of the chosen samples, which are compared in one batch."""
        try:
            found = next(labelled_batches(self.runner, Reading(samples, [batch], self.probe)))
        except RuntimeError as error:
            if "stack expects each tensor to be equal size" not in str(error):
                raise
            raise DoesNotApply(
                f"Gradients of {batch.size} samples are compared in one batch, and these vary in "
                "size. Give a loader whose collate_fn pads them, or leave LocalElasticity out."
            ) from error
        return found.inputs, found.labels

    def _add_share(
        self,
        sums: Sums,
        wanted: KernelRequest,
        of_all: Callable[[Any], Any],
        number: int,
        inputs: Any,
        labels: Tensor,
    ) -> KernelAnswer:
        """Add the gradients along the output directions of this process to the sums."""
        begun, runner, held = time.perf_counter(), self.runner, self.runner.generators()
        read = wanted.outputs if callable(wanted.outputs) else of_all

        def call(inputs: Any) -> Tensor:
            seed_generators(self.probe.seed, number, held)
            return read(runner.call(inputs))

        # torch finds no tensors in a tuple of another class
        inputs = tuple(inputs) if isinstance(inputs, Arguments) else inputs
        require_rows(inputs)
        names = None if wanted.parameters is None else list(wanted.parameters)
        network = Network(runner.model, call, inputs, len(labels), names)
        v = output_directions(wanted.outputs, network.num_outputs, self.probe.seed)
        own = range(self.processes.rank, len(v), self.processes.world)

        def foresee(each: float) -> None:
            so_far = time.perf_counter() - begun
            # steps on the loss are compared in a forward pass of their own, which is checked, too
            checks = (2 if wanted.relative_similarity else 1) * so_far
            seconds = checks + expected_seconds(wanted, len(own), each)
            if text := announcement(wanted, len(v), network.m, seconds):
                runner.announce(text)

        found = tangent_kernel(network, v, own, runner.advance, foresee)
        sums.add("kernel", found.kernel.to(sums.flat))
        of_modules, C = (found.one_by_one, found.by_network), network.num_outputs
        answer = KernelAnswer(found.kernel, labels.cpu(), None, C, *of_modules)
        answer = answer._replace(seconds_each=found.seconds)
        if not wanted.relative_similarity:
            return answer
        started = time.perf_counter()
        losses = partial(loss_gradients, targets=labels, loss=wanted.loss)
        found_moves = output_changes(network, v, losses, own, runner.advance)
        # moves by one step are only compared with one another, so each step may have its own unit
        changes = found_moves.changes / scale_of(found_moves.losses, 1).mT.to(found_moves.changes)
        sums.add("squared moves", changes.square().sum(0).to(sums.flat))
        return answer._replace(seconds_of_moves=time.perf_counter() - started)

    def _add_last_layer(
        self, sums: Sums, place: Wanted, inputs: Any, labels: Tensor
    ) -> KernelAnswer:
        """Add the closed form; every process runs the network, which may be sharded."""
        point, name = place.classifier, place.head
        assert point is not None
        assert name is not None
        features: list[Tensor] = []

        def keep(_: Point, h: Tensor) -> None:
            features.append(h.to(self.runner.device_of_sums).double())

        uncast = torch.autocast(self.runner.device.type, enabled=False)
        runs = {name: point.run}
        with uncast, capture(self.runner.model, [point], runs, self.runner.call) as watched:
            watched.forward(inputs, len(labels), keep)
        watched.require_all()
        if not all_finite(features[0]):
            raise why_not_finite([point])
        head = watched.heads[name]
        C = len(_rows_of(head, point, features[0]))
        kernel = last_layer_kernel(features[0], C, head.bias is not None).to(sums.flat)
        if self.processes.rank == 0:  # all have the same kernel, which counts once
            sums.add("kernel", kernel)
            # a step on any loss moves by |v_i| |<h_i, h_j> + 1|, and v_i cancels in relative moves
            sums.add("squared moves", (kernel / C).square())
        return KernelAnswer(kernel, labels.cpu(), None, C)


def require_own_outputs(probe: Probe) -> None:
    """Refuse a probe under which the outputs of a sample depend on other samples.

    Raises:
        ValueError: If BatchNorm uses the statistics of probe batches.
    """
    if probe.batch_norm == "batch":
        raise ValueError(
            'With Probe(batch_norm="batch") the outputs of a sample depend on other samples, so it '
            'has no gradient of its own. Give LocalElasticity a probe with batch_norm="eval".'
        )


def require_rows(inputs: Any) -> None:
    """Refuse inputs from which single samples cannot be taken.

    Raises:
        DoesNotApply: If they hold an object, such as a batch of graphs.
    """
    for leaf in tree_leaves(inputs):
        if not isinstance(leaf, Tensor) and next(tensors_in(leaf), None) is not None:
            raise DoesNotApply(
                f"Gradients are compared sample by sample, and single samples cannot be taken from "
                f"a {type(leaf).__name__}. Call the network with tensors, by Probe(unpack=..., "
                "forward=lambda module, inputs: ...), or leave LocalElasticity out."
            )


def chosen_samples(plan: Plan, wanted: KernelRequest, probe: Probe) -> ProbeBatch:
    """The first samples of each chosen class of the probe, class by class, as one batch.

    Args:
        plan: The plan with all batches of the probe.
        wanted: Says how many samples and classes to choose.
        probe: Its seed decides which classes are chosen.
    """
    known = [
        (torch.tensor(each.indices), each.labels)
        for each in plan.batches
        if each.labels is not None
    ]
    indices, labels = (torch.cat(parts) for parts in zip(*known, strict=True))
    random = torch.Generator().manual_seed(probe.seed)
    order = torch.randperm(plan.num_classes, generator=random)
    classes = plan.classes[order[: wanted.max_classes].sort().values]
    of_class = [(labels == k).nonzero().flatten()[: wanted.samples_per_class] for k in classes]
    chosen = torch.cat(of_class)
    return ProbeBatch(len(plan.batches), indices[chosen].tolist(), labels[chosen])


def _rows_of(head: Head, point: Point, features: Tensor) -> Tensor:
    """The weight of the head, if its output is W h + b of these features, shape ``(m, d)``."""
    if not head.is_plain or head.weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"The head '{point.module}' is not a linear layer on {features.shape[1]} features per "
            'sample, so parameters="last_layer" has no closed form. Name its parameters instead: '
            f'parameters=["{point.module}.**"].'
        )
    return head.weight
