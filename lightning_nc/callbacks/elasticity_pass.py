"""The gradients of a few samples compared, with one vote and one reduction."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.callbacks.measuring_pass import MeasuringPass
from lightning_nc.callbacks.plan import Plan
from lightning_nc.callbacks.request import Answer, KernelAnswer, KernelRequest
from lightning_nc.functional.gradient_kernel import last_layer_kernel, output_directions
from lightning_nc.functional.loss_gradients import loss_gradients
from lightning_nc.functional.tangent.kernel import output_changes, tangent_kernel
from lightning_nc.functional.tangent.network import Network
from lightning_nc.metrics.sweep import SweepState
from lightning_nc.probe.data import Probe, ProbeBatch
from lightning_nc.probe.generators import seed_generators
from lightning_nc.probe.hooks import Head, capture
from lightning_nc.probe.layers import Point, main_tensor
from lightning_nc.probe.sweep import Reading, labelled_batches


class _Routes(NamedTuple):
    """Of how many outputs there are gradients, and how they were taken; as of `KernelAnswer`."""

    num_outputs: int
    one_by_one: Mapping[str, str] = MappingProxyType({})
    by_network: Sequence[str] = ()
    seconds_of_moves: float = 0.0


class _Local(NamedTuple):
    """What a process knows after its share of the work."""

    labels: Tensor
    sums: SweepState
    routes: _Routes


class ElasticityPass(MeasuringPass):
    """Gradients of the same samples on every process, each in its share of the directions."""

    def run(self) -> list[Answer]:
        """Compare gradients for each request, of which there is one as a rule."""
        return [self._answer(each.kernel) for each in self.requests if each.kernel is not None]

    def _answer(self, wanted: KernelRequest) -> Answer:
        local = self.processes.agree(partial(self._compare, wanted), self._digest)
        sums = local.sums.compute()
        answer = KernelAnswer(
            sums["kernel"],
            local.labels,
            sums["squared moves"].sqrt() if wanted.relative_similarity else None,
            **local.routes._asdict(),
        )
        counts = local.labels.bincount(minlength=self.plan.num_classes if self.plan else 0)
        return Answer({}, None, counts, kernel=answer)

    def _compare(self, wanted: KernelRequest) -> _Local:
        """The share of this process."""
        with self._settled() as (plan, samples):
            batch = chosen_samples(plan, wanted, self.probe)
            reading = Reading(samples, [batch], self.probe, plan.num_classes)
            _, inputs, labels = next(labelled_batches(self.runner, reading))
            m = len(labels)
            state = self._state({"kernel": (m, m), "squared moves": (m, m)})
            with self.runner.precision():
                if wanted.parameters == "last_layer":
                    routes = self._add_last_layer(state, plan, inputs, m)
                else:
                    routes = self._add_share(state, wanted, batch.number, inputs, labels)
        return _Local(labels.cpu(), state, routes)

    def _add_share(
        self, state: SweepState, wanted: KernelRequest, number: int, inputs: Any, labels: Tensor
    ) -> _Routes:
        """Add the directions of this process up."""
        runner, held = self.runner, self.runner.generators()
        read = wanted.outputs if callable(wanted.outputs) else main_tensor

        def call(inputs: Any) -> Tensor:
            seed_generators(self.probe.seed, number, held, runner.device)
            return read(runner.call(inputs))

        names = None if wanted.parameters is None else list(wanted.parameters)
        network = Network(runner.model, call, inputs, len(labels), names)
        v = output_directions(wanted.outputs, network.num_outputs, self.probe.seed)
        own = range(self.processes.rank, len(v), self.processes.world)
        found = tangent_kernel(network, v, own, runner.advance)
        state.update("kernel", found.kernel.to(state.flat))
        routes = _Routes(network.num_outputs, found.one_by_one, found.by_network)
        if not wanted.relative_similarity:
            return routes
        started = time.perf_counter()
        losses = partial(loss_gradients, targets=labels, loss=wanted.loss)
        changes = output_changes(network, v, losses, own, runner.advance).changes
        state.update("squared moves", changes.square().sum(0).to(state.flat))
        return routes._replace(seconds_of_moves=time.perf_counter() - started)

    def _add_last_layer(self, state: SweepState, plan: Plan, inputs: Any, m: int) -> _Routes:
        """The closed form; every process runs the network, which may be sharded."""
        (_, point) = plan.wanted[0]
        assert point is not None
        features: list[Tensor] = []

        def keep(_: Point, h: Tensor) -> None:
            features.append((h.cpu() if h.device.type == "mps" else h).double())

        uncast = torch.autocast(self.runner.device.type, enabled=False)
        with uncast, capture(self.runner.model, [point], plan.head, self.runner.call) as watched:
            watched.forward(inputs, m, keep)
        head = watched.head
        assert head is not None
        C = len(_rows_of(head, point, features[0]))
        if self.processes.rank == 0:  # the others have the same
            kernel = last_layer_kernel(features[0], C, head.bias is not None).to(state.flat)
            state.update("kernel", kernel)
            # of a step on any loss: |v_i| |<h_i, h_j> + 1|, of which relative ones know no v
            state.update("squared moves", (kernel / C).square())
        return _Routes(C)


def chosen_samples(plan: Plan, wanted: KernelRequest, probe: Probe) -> ProbeBatch:
    """The first samples of each class of the probe, class by class, as one batch."""
    known = [(torch.tensor(indices), of) for _, indices, of in plan.batches if of is not None]
    indices, labels = (torch.cat(parts) for parts in zip(*known, strict=True))
    random = torch.Generator().manual_seed(probe.seed)
    K = plan.num_classes
    classes = torch.randperm(K, generator=random)[: wanted.max_classes].sort().values
    of_class = [(labels == k).nonzero().flatten()[: wanted.samples_per_class] for k in classes]
    chosen = torch.cat(of_class)
    return ProbeBatch(len(plan.batches), indices[chosen].tolist(), labels[chosen])


def _rows_of(head: Head, point: Point, features: Tensor) -> Tensor:
    """The head's weight, if its output is W h + b of these features."""
    if not head.is_affine or head.weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"The head '{point.module}' is not a linear layer on {features.shape[1]} features per "
            'sample, so that parameters="last_layer" has no closed form: name its parameters, '
            f'parameters=["{point.module}.*"].'
        )
    return head.weight
