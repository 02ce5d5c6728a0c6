"""The places in a network that answer requests: points, and how each is pooled."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_nc.arguments import require_layers
from lightning_nc.network.auto_pooling import Chooser, pooling_of_head, shapes_of
from lightning_nc.network.batches import ProbeBatch
from lightning_nc.network.blocks import block_points
from lightning_nc.network.capture import capture, raw_input
from lightning_nc.network.graphs import rows_of_graphs
from lightning_nc.network.module_run import ModuleRun
from lightning_nc.network.points import Point, match_layers, named_modules
from lightning_nc.network.pooling import Pooling
from lightning_nc.network.positions import AtEveryPosition
from lightning_nc.network.runner import Runner
from lightning_nc.network.trace import Trace, trace
from lightning_nc.passes.draw import Drawn
from lightning_nc.passes.geometry_statistics import GEOMETRY, require_statistics
from lightning_nc.passes.head_notes import head_notes, is_apart, no_head_note, outputs_note
from lightning_nc.passes.heads import last_layer_point, require_hooks, settle_head
from lightning_nc.passes.layer_notes import apart_note, several_note
from lightning_nc.passes.plan import Wanted, megabytes_of, points_of
from lightning_nc.passes.request import Request
from lightning_nc.passes.sweeps import Reading, labelled_batches

_READ = 8  # samples that are read to see whether they have one size
_NO_TOKENS = (
    "labels are of whole samples and the inputs are no tokens, so PR is that of the labels' "
    "numbers, which means nothing unless these are next tokens. For text, use "
    "Probe(unpack=next_token); for a classifier, EquiSeparation."
)


class Places:
    """Finds the points that answer requests.

    Args:
        runner: The network.
        reading: The source and its first batch.
        found: A traced forward pass of that batch.
        inputs: The inputs of that batch.
        drawn: The samples of the probe.

    Attributes:
        labels_seen: Largest label of the source + 1; no request changes what another finds.
        num_labels: Number of labels from 0: rows of heads, or the largest label + 1.
    """

    def __init__(
        self, runner: Runner, reading: Reading, found: Trace, inputs: Any, drawn: Drawn
    ) -> None:
        self.runner, self.reading, self.found, self.inputs = runner, reading, found, inputs
        self.labels_seen = self.num_labels = drawn.num_labels
        self.classes, self.counts = torch.unique(drawn.labels, return_counts=True)
        self.samples = len(reading.batches[0].indices)

    def of_all(
        self, requests: Sequence[Request], failures: dict[int, Exception]
    ) -> list[Wanted | None]:
        """Where the answer to each request comes from; None if it failed, with the cause noted.

        Args:
            requests: What to measure.
            failures: Why requests have failed, by number; those that fail here are added.
        """
        wanted: list[Wanted | None] = []
        for number, request in enumerate(requests):
            wanted.append(None)
            if number not in failures:
                try:
                    wanted[-1] = self._where(request)
                except Exception as error:
                    failures[number] = error
        return self._pooled(wanted)

    def _where(self, request: Request) -> Wanted:
        own = request.statistics
        require_statistics(own)
        if request.layers:
            require_layers(request.layers)
        if not request.geometry and any(each.second_sweep for each in own):
            raise ValueError(
                "A statistic of the second sweep needs final class means. Give "
                "Request(geometry=True), or set second_sweep = False."
            )
        head = settle_head(self.found, request, self.labels_seen)
        points, notes = self._layers(request, head)
        notes |= outputs_note(self.found, request)
        if request.tokens and not self.reading.of_positions and self.found.raw is not None:
            notes["no tokens"] = _NO_TOKENS
        if not request.classifier:
            return Wanted(points, None, statistics=own, geometry=request.geometry, notes=notes)
        last = last_layer_point(self.found, head, request)
        require_hooks(self.found, last, self.labels_seen)
        if head is None and request.head is None:
            notes |= no_head_note(self.found, self.labels_seen, last)
        if head is not None:
            self.num_labels = max(self.num_labels, head.rows or 0)
            notes |= head_notes(self.found, head, self.classes, self.counts, request)
        name = None if head is None or is_apart(self.found, head, request) else head.name
        declared = request.statistics, request.mismatches, request.geometry
        return Wanted(points, last, name, bool(request.head), *declared, notes)

    def _layers(
        self, request: Request, head: ModuleRun | None
    ) -> tuple[list[Point], dict[str, str]]:
        """The points of the layers of a request, and notes on what is left out."""
        if request.layers is None:
            return [], {}
        if request.layers != "blocks":
            runs, modules = self.found.keys(), named_modules(self.runner.model)
            points = match_layers(request.layers, runs, modules, request.pool)
            return points, apart_note(self.found, points)
        points = block_points(self.found, head, request.pool)
        notes = several_note(self.found, points) | apart_note(self.found, points)
        why = self._why_no_input() if points[0].module is None else None
        if why is None:
            return points, notes
        said = f"the raw input {why}, so it has no class means and is left out of the layers."
        return points[1:], notes | {"input": said}

    def _why_no_input(self) -> str | None:
        """Why the raw input is no layer: its first axis is of nodes or time, or it varies."""
        raw = self.found.raw
        rows = None if raw is None else rows_of_graphs(raw.shape, self.samples, self.inputs)
        of_samples = raw is None or rows is not None or len(raw) == self.samples
        if raw is not None and not self.reading.of_positions and not of_samples:
            return f"has shape {tuple(raw.shape)} for {self.samples} samples"
        return "varies in size from batch to batch" if self._raw_varies else None

    @cached_property
    def _raw_varies(self) -> bool:
        """Whether the raw input of other samples has another size, as with dynamic padding.

        They are read two at a time: the longest of many is often as long as that of many others.
        What torch collates by default is of one size, unless it is a batch of one sample.
        """
        samples, dataset = self.reading.samples, self.reading.samples.dataset
        raw, at_a_time = self.found.raw, min(samples.batch_size, 2)
        if raw is None or raw.ndim < 2 or (samples.collate is default_collate and at_a_time > 1):
            return False
        known = set(self.reading.batches[0].indices)
        others = [i for i in range(min(len(dataset), len(known) + _READ)) if i not in known]
        starts = range(0, min(len(others), _READ), at_a_time)
        read = (raw_input(self._inputs_of(others[i : i + at_a_time])) for i in starts)
        return any(isinstance(x, Tensor) and x.shape[1:] != raw.shape[1:] for x in read)

    def _inputs_of(self, indices: list[int]) -> Any:
        reading = self.reading._replace(batches=[ProbeBatch(0, indices, None)])
        return next(labelled_batches(self.runner, reading)).inputs

    def _pooled(self, wanted: list[Wanted | None]) -> list[Wanted | None]:
        """Replace ``"auto"`` by what suits the shape of each point."""
        points = points_of(wanted)
        chooser = Chooser(self.found, self.samples, inputs=self.inputs)
        if self.samples > 1 and any(chooser.is_unclear(point) for point in points):
            fewer = self._inputs_of(self.reading.batches[0].indices[:-1])
            with self.runner.precision():
                other = trace(self.runner.model, fewer, self.runner.call)
            shapes = shapes_of(other), self.samples - 1
            chooser = Chooser(self.found, self.samples, shapes, self.inputs)
        if self.reading.of_positions:
            chosen = {point: chooser.at_every_position(point) for point in points}
            return self._replaced(wanted, chosen)
        maps = [point for point in points if chooser.is_map(point)]
        flatten = self._fit(chooser, maps)
        of_layers = flatten and not (any(p.module is not None for p in maps) and self._raw_varies)
        chosen = {
            point: chooser.chosen(point, flatten if point.module is None else of_layers)
            for point in points
        }
        heads = {w.classifier: w.head for w in wanted if w and w.classifier and w.head is not None}
        chosen |= self._of_heads(heads, chosen)
        return self._replaced(wanted, chosen)

    def _replaced(
        self, wanted: list[Wanted | None], chosen: dict[Point, Point]
    ) -> list[Wanted | None]:
        return [
            None
            if each is None
            else each._replace(
                layers=[chosen[point] for point in each.layers],
                classifier=None if each.classifier is None else chosen[each.classifier],
                pooling=_in_words([(point, chosen[point]) for point in each.points]),
            )
            for each in wanted
        ]

    def _fit(self, chooser: Chooser, maps: Sequence[Point]) -> bool:
        """Whether all feature maps can be flattened: the accumulators fit into the budget."""
        K = len(self.counts)
        megabytes = sum(megabytes_of(K, chooser.size(point), GEOMETRY) for point in maps)
        return megabytes <= self.reading.probe.memory_mb

    def _of_heads(self, heads: dict[Point, str], chosen: dict[Point, Point]) -> dict[Point, Point]:
        """The pooling of heads that the network applies to every token of a sequence."""
        tokens = {
            point: name
            for point, name in heads.items()
            if isinstance(pool := chosen[point].pool, Pooling) and pool.mean == "tokens"
        }
        if not tokens:
            return {}
        runs = {name: point.run for point, name in tokens.items()}
        watching = capture(self.runner.model, [], runs, self.runner.call)
        with watching as watched, self.runner.precision():
            output = watched.forward(self.inputs, self.samples, lambda *_: None)
        found = {}
        for point, name in tokens.items():
            own = pooling_of_head(watched.outputs.get(name), output, self.inputs)
            pool = chosen[point].pool
            assert isinstance(pool, Pooling)
            found[point] = replace(point, pool=replace(pool, own=own))
        return found


def _in_words(pairs: Sequence[tuple[Point, Point]]) -> dict[str, str]:
    """How points are pooled, by name, where that was chosen and is not plain flattening."""
    poolings = {
        after.name: after.pool.words
        for before, after in pairs
        if before.pool == "auto" and isinstance(after.pool, Pooling | AtEveryPosition)
    }
    return {name: words for name, words in poolings.items() if words}
