"""What a dry run has found, as values and as a table."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lightning_nc.checking.timing import Pace
from lightning_nc.measures.shown import html_table
from lightning_nc.network.points import Point
from lightning_nc.passes.gradient_cost import duration
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.probe import Probe
from lightning_nc.wording import first_and_last

_TRAINING_STEP = 3  # forward passes: a backward pass takes about as long as two


class Finding(NamedTuple):
    """What was found for one callback.

    Attributes:
        name: Name of the callback.
        why_not: Why it does not apply; empty if it does.
        seconds: Estimated seconds of a measurement in a pass of its own; None if it shares one.
    """

    name: str
    why_not: str = ""
    seconds: float | None = None

    @property
    def applies(self) -> bool:
        """Whether it can be measured."""
        return not self.why_not

    def __str__(self) -> str:
        if not self.applies:
            return f"does not apply: {self.why_not}"
        if self.seconds is None:
            return "applies"
        return f"applies, about {duration(self.seconds)} for a measurement"


@dataclass(frozen=True)
class Check:
    """What would be measured, where, and what it costs; it prints as a table.

    Attributes:
        families: What was found for each callback.
        names: Names of classes by label; None if the dataset does not tell them.
        pace: Seconds to read a sample and to run the network on it.
        probe: The probe.
        plan: The plan of a measurement.
    """

    families: Sequence[Finding]
    names: Sequence[str] | None
    pace: Pace = field(repr=False)
    probe: Probe = field(repr=False)
    plan: Plan = field(repr=False)

    @property
    def layers(self) -> list[str]:
        """Names of the layers, each once; those of the first callback come first, by depth."""
        return list(dict.fromkeys(point.name for each in self.plan.met for point in each.layers))

    @property
    def head(self) -> str | None:
        """Name of the head; None if there is none."""
        return next(iter(self.plan.heads.values()), None)

    @property
    def widths(self) -> dict[str, int]:
        """Number of features per sample, by layer."""
        return {point.name: width for point, width in self.plan.widths.items()}

    @property
    def pooling(self) -> dict[str, str]:
        """How layers are pooled, in words by name, where they are not merely flattened."""
        return {name: words for each in self.plan.met for name, words in each.pooling.items()}

    @property
    def counts(self) -> dict[int, int]:
        """Samples of the probe by label."""
        counts = self.plan.counts.long().tolist()
        return dict(zip(self.plan.classes.tolist(), counts, strict=True))

    @property
    def _groups(self) -> list[list[Point]]:
        return self.plan.in_groups(self.probe.memory_mb)

    @property
    def megabytes(self) -> float:
        """Memory of the accumulators at the peak, in MB."""
        return max(sum(self.plan.megabytes[point] for point in group) for group in self._groups)

    @property
    def cached(self) -> bool:
        """Whether features are kept, so that the network runs once and not twice."""
        return all(map(self._is_cached, self._groups))

    @property
    def seconds(self) -> float:
        """Estimated seconds of the pass that callbacks share, without figures."""
        items = sum(len(batch.indices) for batch in self.plan.batches)
        sweeps = sum(1 if self._is_cached(group) else 2 for group in self._groups if group)
        return sweeps * items * sum(self.pace)

    @property
    def epoch_seconds(self) -> float:
        """Estimated seconds of an epoch: a step takes as long as three forward passes."""
        return self.plan.source_size * (self.pace.reading + _TRAINING_STEP * self.pace.forward)

    @property
    def notes(self) -> list[str]:
        """Sentences on what is left out."""
        notes = [self.plan.notes, *(each.notes for each in self.plan.met)]
        return list(dict.fromkeys(text for each in notes for text in each.values()))

    def rows(self) -> list[tuple[str, str]]:
        """The lines of the table."""
        of_families = [(each.name, str(each)) for each in self.families]
        notes = [("note", text) for text in self.notes]
        return [
            ("layers", f"{len(self.layers)}: {first_and_last(self.layers)}"),
            ("features", _between(self.widths.values(), "number") + " per sample and layer"),
            ("pooling", _grouped(self.pooling) or "none: layers are flattened"),
            ("head", self.head or "none found"),
            ("classes", self._classes()),
            ("samples", self._samples()),
            ("memory", self._memory()),
            ("time", self._time()),
            *of_families,
            *notes,
        ]

    def __str__(self) -> str:
        """The table."""
        wide = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:<{wide}}  {text}" for name, text in self.rows())

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        return html_table(self.rows())

    def _is_cached(self, group: Sequence[Point]) -> bool:
        return self.plan.megabytes_to_keep(group) <= self.probe.cache_mb

    def _classes(self) -> str:
        counts, kind = self.counts, "position" if self.plan.of_positions else "sample"
        said = f"{len(counts)}, with {_between(counts.values(), kind)} each"
        alike = len(set(counts.values())) == 1
        if self.names is None and alike:
            return said
        named = {k: str(k) if self.names is None else self.names[k] for k in counts}
        if alike:
            return f"{said}: {first_and_last([*named.values()])}"
        return f"{said}: {first_and_last([f'{named[k]}: {n}' for k, n in counts.items()])}"

    def _samples(self) -> str:
        items = sum(len(batch.indices) for batch in self.plan.batches)
        of_all = f"{items} of {self.plan.source_size}"
        if not self.plan.of_positions:
            return of_all
        return f"{sum(self.counts.values())} labelled positions in {of_all} sequences or images"

    def _memory(self) -> str:
        groups = len(self._groups)
        said = f"accumulators of {self.megabytes:.3g} MB (limit {self.probe.memory_mb:.4g})"
        if groups > 1:
            said += f" for each of {groups} groups of layers, measured one after another"
        runs = "kept, so that the network runs once" if self.cached else "not kept: it runs twice"
        return f"{said}; features are {runs}"

    def _time(self) -> str:
        share = self.seconds / max(self.epoch_seconds, 1e-9)
        return (
            f"about {duration(self.seconds)} for a measurement without figures, {share:.2g} times "
            f"an epoch, which takes {duration(self.epoch_seconds)} (estimated from one batch)"
        )


def _between(numbers: Collection[int], kind: str) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    said = f"{low}" if low == high else f"{low} to {high}"
    return f"{said} {kind}{'s' * (high != 1)}"


def _grouped(words: Mapping[str, str]) -> str:
    of_each: dict[str, list[str]] = {}
    for name, said in words.items():
        of_each.setdefault(said, []).append(name)
    return "; ".join(f"{said} ({first_and_last(names)})" for said, names in of_each.items())
