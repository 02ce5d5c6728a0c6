"""A pass of two sweeps over the probe, each followed by one vote and one reduction."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.network.points import Point
from lightning_nc.passes.dealing import places_of, share_of
from lightning_nc.passes.feature_cache import (
    FeatureCache,
    belongs_on_host,
    free_megabytes,
    has_own_memory,
)
from lightning_nc.passes.found_layers import FoundLayers
from lightning_nc.passes.geometry_statistics import ClassSums, ResidualSums
from lightning_nc.passes.layer_batches import Centres, LayerBatch, ResidualBatch
from lightning_nc.passes.measuring_pass import MeasuringPass
from lightning_nc.passes.plan import Plan
from lightning_nc.passes.request import Answer
from lightning_nc.passes.statistics import Statistic
from lightning_nc.passes.sum_checks import not_finite, why_not_finite
from lightning_nc.passes.summing import Summing
from lightning_nc.passes.sums import Sums
from lightning_nc.passes.sweeps import Reading, Swept, sweep
from lightning_nc.passes.totals import centres_at, sums_of

_TALLY = "tally"  # place of the tallies of requests; all keys of sums are (place, name)


class _FirstSweep(NamedTuple):
    """What a process knows after its first sweep.

    Attributes:
        plan: What is measured.
        groups: Number of groups of points.
        points: The points of this group.
        reading: What was read, and how.
        cache: The features; None if there are too many of them to keep.
        places: Which samples of the probe these are, in the order in which they are read.
        swept: The heads and their decisions.
        sums: The sums of this process.
    """

    plan: Plan
    groups: int
    points: list[Point]
    reading: Reading
    cache: FeatureCache | None
    places: Tensor
    swept: Swept
    sums: Sums


class GeometryPass(MeasuringPass):
    """Measures the class geometry of layers, for several requests on one probe."""

    def _answers(self) -> list[Answer | Exception]:
        """Measure in two sweeps.

        Layers that do not fit into the memory budget together are measured in groups, one after
        another, with two sweeps each. Usually there is one group.
        """
        found = FoundLayers()
        memory_mb = self._memory_mb()
        group, groups = 0, 1
        while group < groups:
            plan, groups = self._measure_group(group, memory_mb, found)
            group += 1
        self._note(plan, found.broken)
        self.notes |= plan.notes
        return [self._answer(n, plan, found) for n in range(len(self.requests))]

    def _memory_mb(self) -> float:
        """What accumulators may take, in MB: not over half of what the shortest device has free."""
        device = self.runner.device
        if not has_own_memory(device):
            return self.probe.memory_mb
        free = self.processes.agree(partial(free_megabytes, device), lambda: 0)
        return min(self.probe.memory_mb, self.processes.least(free) / 2)

    def _in_groups(self, plan: Plan, memory_mb: float) -> list[list[Point]]:
        """The points in groups; it is told if there are more for want of memory on the device."""
        groups = plan.in_groups(memory_mb)
        if len(groups) > len(plan.in_groups(self.probe.memory_mb)):
            self.notes["groups"] = (
                f"the device has {2 * memory_mb:.3g} MB free, so layers are measured in "
                f"{len(groups)} groups, one after another, which takes longer and changes no value."
            )
        return groups

    def _measure_group(self, group: int, memory_mb: float, found: FoundLayers) -> tuple[Plan, int]:
        """Add what a group of layers shows, and return the plan and the number of groups.

        Its features and its sums are not kept.
        """
        work = partial(self._first_sweep, group, memory_mb)
        first = self._agree(work if group else partial(self._with_plan_of_sizes, work))
        plan = first.plan
        totals = first.sums.over_processes(self.processes.all_reduce)
        found.tallies |= sums_of(_TALLY, totals)
        found.decided |= first.swept.decided
        points = plan.with_geometry(first.points, self.failed)
        centres: dict[Point, Centres] = {}
        if points:
            second = partial(self._second_sweep, first, points, totals, found.decided)
            centres, sums = self._agree(second)
            del second
            totals |= sums.over_processes(self.processes.all_reduce)
            del sums
        needed = plan.needed(first.points, self.failed)
        found.read_totals(plan, needed, totals, centres)
        del totals  # sums of residuals are as large as the classifier, which is copied now
        found.read_heads(plan, needed, first.swept.heads)
        return plan, first.groups

    def _with_plan_of_sizes(self, work: Callable[[], _FirstSweep]) -> _FirstSweep:
        """Sweep, and once more with a new plan if the first batch has other sizes than planned.

        That inputs have another size than at the last measurement shows in the features alone.
        """
        earlier = self.plan
        first = work()
        resized = any(first.plan.widths[p] != d for p, d in first.swept.widths.items())
        if not resized or self.plan is not earlier:
            return first
        del first
        self.plan = None
        self.failed.clear()
        return work()

    def _answer(self, number: int, plan: Plan, found: FoundLayers) -> Answer | Exception:
        if self.requests[number].kernel is not None:
            return ValueError(
                "Request(kernel=...) is answered by another pass: set passes = GradientPass in "
                "the measure."
            )
        wanted = plan.wanted[number]
        if number in self.failed or wanted is None:
            return self.failed[number]
        return found.answer_to(wanted, plan, found.tallies.get(number))

    def _first_sweep(self, group: int, memory_mb: float) -> _FirstSweep:
        """Sum the samples and the features of each class, at the points of a group."""
        with self._settled() as (plan, samples):
            groups = self._in_groups(plan, memory_mb)
            points = plan.needed(groups[group], self.failed)
            K = plan.num_classes
            widths = {point: plan.widths[point] for point in points}
            declared = {p: [s for s in plan.statistics[p] if not s.second_sweep] for p in points}
            tallies = self._tallies(plan) if group == 0 else {}
            # tallies are by label, also of classes that are not measured
            by_label = dict.fromkeys(tallies, (plan.num_labels,))
            sums = self._sums(by_label | self._shapes(declared, K, widths))
            for key, tally in tallies.items():
                sums.add(key, tally)
            classes = plan.classes.to(sums.flat.device)
            places = places_of(plan, self.processes).to(sums.flat.device)

            def batch_of(point: Point, h: Tensor, labels: Tensor, part: slice) -> LayerBatch:
                return LayerBatch(h, labels, K, places[part], classes)

            summing = Summing(sums, declared, batch_of, self.processes.rank)
            reading = share_of(plan, samples, self.probe, self.processes)
            cache = self._cache(plan, reading, widths)
            take = summing.add if cache is None else cache.keep
            heads = {point: name for point, name in plan.heads.items() if point in widths}
            swept = sweep(self.runner, reading, points, take, heads, plan.named_heads)
            failures = swept.failures
            if cache is not None:
                cache.replay(points, summing.add, failures)
            alive = [point for point in points if point not in failures]
            infinite = not_finite(
                {p: [sums.view((p, name)) for name in _of_all_features(declared[p])] for p in alive}
            )
            failures |= dict.fromkeys(infinite, why_not_finite(infinite))
            self._note(plan, {**failures, **summing.broken})
        return _FirstSweep(plan, len(groups), points, reading, cache, places, swept, sums)

    def _tallies(self, plan: Plan) -> dict[Hashable, Tensor]:
        """The tallies of requests on this process."""
        tallies: dict[Hashable, Tensor] = {}
        for number, request in enumerate(self.requests):
            if request.tally is None or number in self.failed:
                continue
            tallies[_TALLY, number] = torch.zeros(plan.num_labels)
            try:
                tally = request.tally(plan.num_labels)
                if tally.shape != (plan.num_labels,):
                    raise ValueError(
                        f"tally({plan.num_labels}) returned shape {tuple(tally.shape)}. Return a "
                        f"number for each label, shape ({plan.num_labels},)."
                    )
                tallies[_TALLY, number] = tally
            except Exception as error:
                self.failed[number] = error
        return tallies

    def _second_sweep(
        self,
        first: _FirstSweep,
        points: list[Point],
        totals: dict[Hashable, Tensor],
        decided: Mapping[Point, Tensor],
    ) -> tuple[dict[Point, Centres], Sums]:
        """Sum what depends on the final class means; return the centres as well.

        The decisions of classifiers are those of this group and of the groups before.
        """
        plan, failures = first.plan, first.swept.failures
        centres = centres_at(plan, points, totals)
        # features that are read again may have changed; cached ones cannot. Residuals are summed
        # first, as they are projected for the others
        read_again: list[Statistic] = [ResidualSums()] if first.cache is None else []
        declared = {
            p: read_again + [s for s in plan.statistics[p] if s.second_sweep] for p in points
        }
        sums = self._sums(self._shapes(declared, plan.num_classes, plan.widths))
        classes, places = plan.classes.to(sums.flat.device), first.places
        decided = {p: _as_classes(rows, plan.classes) for p, rows in decided.items()}

        def batch_of(point: Point, h: Tensor, labels: Tensor, part: slice) -> ResidualBatch:
            of_part = {p: rows[:, part] for p, rows in decided.items()}
            return ResidualBatch(h, labels, centres[point], places[part], of_part, classes)

        summing = Summing(sums, declared, batch_of, self.processes.rank)
        if first.cache is not None:
            first.cache.replay(points, summing.add, failures)
        else:
            samples = first.reading.samples
            with self._guard((samples.dataset, samples.collate)):
                failures |= sweep(self.runner, first.reading, points, summing.add).failures
        self._note(plan, {**failures, **summing.broken})
        return centres, sums

    def _cache(self, plan: Plan, reading: Reading, widths: dict[Point, int]) -> FeatureCache | None:
        """A cache for the features of this process; None unless those of every process fit."""
        needed = plan.megabytes_to_keep(widths, self.processes.world)
        if needed > self.probe.cache_mb:
            return None
        on_host = belongs_on_host(needed, free_megabytes(self.runner.device))
        return FeatureCache(widths, sum(batch.size for batch in reading.own), on_host)

    def _shapes(
        self, declared: Mapping[Point, Sequence[Statistic]], K: int, widths: Mapping[Point, int]
    ) -> dict[Hashable, tuple[int, ...]]:
        return {
            (point, each.name): each.shape_over(self.processes.world, K, widths[point])
            for point, statistics in declared.items()
            for each in statistics
        }


def _of_all_features(statistics: Sequence[Statistic]) -> list[str]:
    """Names of the sums of the first sweep that are finite if and only if all features are.

    Class sums are. Where there are none, every other statistic has to be.
    """
    names = [each.name for each in statistics]
    return [ClassSums.name] if ClassSums.name in names else names


def _as_classes(rows: Tensor, classes: Tensor) -> Tensor:
    """Decisions as class indices: those for rows that belong to none of the K classes are -1."""
    classes = classes.to(rows.device)
    found = torch.searchsorted(classes, rows[:3]).clamp(max=len(classes) - 1)
    return torch.cat([torch.where(classes[found] == rows[:3], found, -1), rows[3:]])
