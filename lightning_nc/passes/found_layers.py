"""What a pass has found at each layer, and the answers made of it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.network.head import Head
from lightning_nc.network.points import Point
from lightning_nc.passes.geometry_statistics import ResidualSums
from lightning_nc.passes.layer_batches import Centres
from lightning_nc.passes.plan import Plan, Wanted
from lightning_nc.passes.request import Answer, ClassifierGeometry
from lightning_nc.passes.sum_checks import has_changed, where, why_changed
from lightning_nc.passes.totals import (
    classifier_at,
    combined,
    declared_of,
    geometry_of,
    mismatches_of,
    sums_of,
)


@dataclass
class FoundLayers:
    """What the groups measured so far have shown, by point.

    Attributes:
        layers: The geometry.
        statistics: What requests declare.
        classifiers: The classifiers, by the point at their input.
        decided: What these decide for the samples of this process.
        tallies: The tallies of requests.
        broken: What failed after the last vote, by point, or by point and name of the statistic; it
            must not decide what is measured next.
    """

    layers: dict[Point, ClassGeometry] = field(default_factory=dict)
    statistics: dict[Point, dict[str, Tensor]] = field(default_factory=dict)
    classifiers: dict[Point, ClassifierGeometry] = field(default_factory=dict)
    decided: dict[Point, Tensor] = field(default_factory=dict)
    tallies: dict[Hashable, Tensor] = field(default_factory=dict)
    broken: dict[Hashable, Exception] = field(default_factory=dict)

    def read_totals(
        self,
        plan: Plan,
        points: Sequence[Point],
        totals: Mapping[Hashable, Tensor],
        centres: Mapping[Point, Centres],
    ) -> None:
        """Add the statistics and the geometry of layers, as the sums of all processes show them."""
        flags: dict[Point, Tensor] = {}
        for point in points:
            try:
                alone: dict[str, Exception] = {}
                sums = combined(plan.statistics[point], sums_of(point, totals), alone)
                self.broken |= {(point, name): error for name, error in alone.items()}
                self.statistics[point] = declared = declared_of(sums)
                if point in centres:
                    self.layers[point] = geometry_of(centres[point], sums, declared)
                if ResidualSums.name in sums:
                    flags[point] = has_changed(self.layers[point], sums[ResidualSums.name])
            except Exception as error:
                self.broken[point] = error
        self.broken |= {point: why_changed(point) for point in where(flags)}

    def read_heads(self, plan: Plan, points: Sequence[Point], heads: Mapping[str, Head]) -> None:
        """Add the classifiers at the last layers among some points."""
        for point in points:
            try:
                if point in plan.last_layers:
                    self.classifiers[point] = classifier_at(point, plan, heads, self.layers[point])
            except Exception as error:
                self.broken.setdefault(point, error)

    def answer_to(self, wanted: Wanted, plan: Plan, tally: Tensor | None) -> Answer:
        """What a request wanted."""
        own = {point.name: self.layers[point] for point in wanted.layers if wanted.geometry}
        last = None if wanted.classifier is None else self.classifiers[wanted.classifier]
        compared = wanted.decisions if wanted.mismatches else None
        names = [each.name for each in wanted.statistics]
        return Answer(
            own,
            last,
            plan.counts,
            tally,
            mismatches=(
                {} if compared is None or last is None else mismatches_of(own, compared, last)
            ),
            classes=plan.classes,
            class_names=plan.class_names,
            notes=wanted.notes,
            pooling=wanted.pooling,
            statistics={
                point.name: {name: self.statistics[point][name] for name in names}
                for point in wanted.layers
                if not wanted.geometry
            },
        )
