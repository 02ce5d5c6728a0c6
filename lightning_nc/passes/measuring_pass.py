"""The base of every pass over a probe: a source, a guard, and a plan that all processes share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from lightning_nc.guards.generators import generators_kept
from lightning_nc.guards.unobtrusive import unobtrusive
from lightning_nc.network.runner import Runner
from lightning_nc.network.samples import Samples, samples_of
from lightning_nc.passes.agreement import Disagreement, Processes
from lightning_nc.passes.one_network import one_network
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.planning import make_plan, still_holds
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Answer, Request
from lightning_nc.passes.sums import Sums

T = TypeVar("T")


class MeasuringPass(ABC):
    """One measurement for several requests on one probe.

    Args:
        runner: The network.
        source: Returns the Dataset or DataLoader to read; random generators are restored after it.
        probe: How to read it.
        requests: What to measure; an exception in the place of a request that could not be made.
        processes: The processes that measure together.
        plan: The plan of an earlier measurement; a new one is made if it no longer fits.
    """

    def __init__(
        self,
        runner: Runner,
        source: Callable[[], Any],
        probe: Probe,
        requests: Sequence[Request | Exception],
        processes: Processes,
        plan: Plan | None = None,
    ) -> None:
        self.runner, self.source, self.probe = runner, source, probe
        self.unmade = {n: each for n, each in enumerate(requests) if isinstance(each, Exception)}
        self.requests = [each if isinstance(each, Request) else Request() for each in requests]
        self.plan = plan
        self.processes = processes._replace(requests=len(self.requests))
        # why requests have failed, by number; the same on all processes after every vote
        self.failed: dict[int, Exception] = {}
        # what is said of the pass and of no single request, by topic, such as what this process
        # could not put back
        self.notes: dict[str, str] = {}

    def run(self) -> list[Answer | Exception]:
        """Measure, and return for each request its answer or the reason why it has none.

        Raises:
            Exception: On all processes, if the probe or the network cannot be read.
        """
        with one_network(self.runner.model, self.processes) as notes:
            self.notes |= notes
            while True:
                try:
                    return self._with_notes(self._answers())
                except Disagreement as disagreement:
                    if not disagreement.failures:
                        raise
                    # a request failed on some processes before they settled on a plan
                    self.failed |= disagreement.failures
                    self.plan = None

    def _with_notes(self, answers: list[Answer | Exception]) -> list[Answer | Exception]:
        """Add the notes to the first answer: they are not told for each request."""
        first = next((n for n, each in enumerate(answers) if isinstance(each, Answer)), None)
        if first is not None:
            answer: Any = answers[first]
            answers[first] = answer._replace(notes={**answer.notes, **self.notes})
        return answers

    @property
    def only_planned_failures(self) -> bool:
        """Whether the plan can be used again: nothing failed that may succeed the next time.

        What does not fit fails again; memory that ran out, or a file, may be there the next time.
        Processes that wait for one another in forward passes must all plan again, or none.
        """
        if self.plan is None or self.failed.keys() != self.plan.failures.keys():
            return False
        lasting = (TypeError, ValueError, LookupError, AttributeError)
        alone = self.processes.world == 1
        return not alone or all(isinstance(e, lasting) for e in self.plan.failures.values())

    def _agree(self, work: Callable[[], T]) -> T:
        return self.processes.agree(
            work, lambda: 0 if self.plan is None else self.plan.digest, self.failed
        )

    def _note(self, plan: Plan, failures: Mapping[Any, Exception]) -> None:
        """Note the requests that cannot be answered because of failures, as in `Plan.failed`."""
        for number, error in plan.failed(failures).items():
            self.failed.setdefault(number, error)

    @abstractmethod
    def _answers(self) -> list[Answer | Exception]:
        """Measure as in `run`, with the same buffers on all processes."""

    def _guard(self, data: tuple[Any, ...]) -> Any:
        touched, probe = (*data, self.runner.around), self.probe
        model = self.runner.model
        return unobtrusive(model, touched, probe.batch_norm, probe.user_hooks, self.notes)

    @contextmanager
    def _settled(self) -> Iterator[tuple[Plan, Samples]]:
        """Yield, under guard, a plan and the samples of the source, which it fits."""
        self.failed |= self.unmade
        with generators_kept(self.runner.generators()):  # the source may be user code
            samples = samples_of(self.source(), self.probe.batch_size)
        with self._guard((samples.dataset, samples.collate)):
            if self.plan is None or not still_holds(self.plan, samples, self.runner.model):
                requests, world = self.requests, self.processes.world
                self.plan = make_plan(
                    self.runner, samples, self.probe, requests, self.failed, world
                )
            self.failed |= self.plan.failures
            yield self.plan, samples

    def _sums(self, shapes: dict[Hashable, tuple[int, ...]]) -> Sums:
        return Sums(shapes, self.runner.device_of_sums)
