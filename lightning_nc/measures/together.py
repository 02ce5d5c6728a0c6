"""Several measures of one network on one probe, in one pass of each kind."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from lightning_nc.measures.given import request_of, require_evaluation
from lightning_nc.measures.measure import Evaluation, Measure
from lightning_nc.measures.measurement import Measurement, keyed, on_its_own
from lightning_nc.network.runner import Runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Answer


class Found(NamedTuple):
    """What was found for a measure.

    Attributes:
        measure: The measure.
        answer: What the pass returned.
        evaluation: What the measure computed from it.
    """

    measure: Measure
    answer: Answer
    evaluation: Evaluation

    @property
    def notes(self) -> list[str]:
        """Sentences on what is undefined or was left out."""
        return [*self.answer.notes.values(), *self.evaluation.notes.values()]

    def measurement(
        self, key: str, book: Mapping[str, float] = MappingProxyType({}), **when: Any
    ) -> Measurement:
        """The values under their logged keys, and what is kept beside them.

        Args:
            key: The name of the probe in logged keys.
            book: Values that are logged with those of the measure.
            **when: The other fields of the measurement.
        """
        answer, found = self.answer, self.evaluation
        return Measurement(
            values=keyed(self.measure.family, key, {**found.values, **book}, found.layers),
            arrays={name: on_its_own(array) for name, array in found.arrays.items()},
            counts=on_its_own(answer.counts),
            pooling=dict(answer.pooling),
            classes=answer.class_names,
            **when,
        )


def measured_together(
    runner: Runner, probe: Probe, measures: Sequence[Measure]
) -> list[Found | Exception]:
    """Measure on this process alone, in one pass of each kind.

    Returns:
        For each measure what was found, or why it cannot be measured.

    Raises:
        Exception: If the probe or the network cannot be read.
    """
    found: dict[int, Found | Exception] = {}
    for kind in dict.fromkeys(each.passes for each in measures):
        of_kind = [n for n, each in enumerate(measures) if each.passes is kind]
        requests = [request_of(measures[n]) for n in of_kind]
        one_pass = kind(runner, lambda: probe.source, probe, requests, Processes())
        for n, answer in zip(of_kind, one_pass.run(), strict=True):
            found[n] = evaluated(measures[n], answer)
    return [found[n] for n in range(len(measures))]


def evaluated(measure: Measure, answer: Answer | Exception) -> Found | Exception:
    """What a measure makes of an answer, or why it cannot."""
    if isinstance(answer, Exception):
        return answer
    try:
        return Found(measure, answer, require_evaluation(measure, measure.evaluate(answer)))
    except Exception as error:
        return error
