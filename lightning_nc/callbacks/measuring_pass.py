"""What every pass over a probe starts with: a source, a guard, and a plan on which all agree."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lightning_nc.callbacks.plan import Plan, make_plan, still_holds
from lightning_nc.callbacks.processes import Processes
from lightning_nc.callbacks.request import Answer, Request
from lightning_nc.metrics.sweep import SweepState
from lightning_nc.probe.data import Probe, Samples, samples_of
from lightning_nc.probe.generators import generators_kept
from lightning_nc.probe.guards import unobtrusive
from lightning_nc.probe.runner import Runner


class MeasuringPass(ABC):
    """A measurement of the union of several requests, on one probe.

    Args:
        runner: The network.
        source: Finds the Dataset or DataLoader to read; called under guard.
        probe: How to read it.
        requests: What is to be measured.
        processes: With whom.
        plan: Of an earlier measurement; made anew if it does not fit the source.
    """

    def __init__(
        self,
        runner: Runner,
        source: Callable[[], Any],
        probe: Probe,
        requests: Sequence[Request],
        processes: Processes,
        plan: Plan | None = None,
    ) -> None:
        self.runner, self.source, self.probe = runner, source, probe
        self.requests, self.processes, self.plan = list(requests), processes, plan

    @abstractmethod
    def run(self) -> list[Answer]:
        """Measure, and answer each request; on failure raise on all processes."""

    def _digest(self) -> int:
        return self.plan.digest if self.plan is not None else 0

    def _guard(self, data: tuple[Any, ...]) -> Any:
        touched = (*data, self.runner.around)
        return unobtrusive(self.runner.model, touched, self.probe.batch_norm, self.runner.device)

    @contextmanager
    def _settled(self) -> Iterator[tuple[Plan, Samples]]:
        """Under guard: the samples of the source, and a plan that fits them."""
        with generators_kept(self.runner.generators()):  # the source may be code of the user
            samples = samples_of(self.source(), self.probe.batch_size)
        with self._guard((samples.dataset, samples.collate)):
            if self.plan is None or not still_holds(self.plan, samples):
                self.plan = make_plan(self.runner, samples, self.probe, self.requests)
            yield self.plan, samples

    def _state(self, shapes: dict[Hashable, tuple[int, ...]]) -> SweepState:
        device = self.runner.device
        on = torch.device("cpu") if device.type == "mps" else device
        world = self.processes.world
        return SweepState(shapes, self.processes.all_reduce if world > 1 else None, on)
