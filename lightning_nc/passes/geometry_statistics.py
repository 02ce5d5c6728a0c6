"""The sums over samples behind the geometry of a layer and the decisions of classifiers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lightning_nc.network.points import Point
from lightning_nc.passes.layer_batches import LayerBatch, ResidualBatch
from lightning_nc.passes.statistics import Statistic, require_same
from lightning_nc.wording import shown


class ClassSums(Statistic):
    """The sum of the features of each class."""

    name = "sums"
    second_sweep = False

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """One row per class."""
        return K, d

    def add_to(self, total: Tensor, batch: LayerBatch) -> None:
        """Add features to the rows of their classes alone: the others are not touched."""
        batch.members.add_features(total, batch.features)


class ResidualSquares(Statistic):
    """The squared residuals of each class along the directions of D and of NC1, and in all."""

    name = "squares"

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """Three numbers per class."""
        return 3, K

    def of(self, batch: ResidualBatch) -> Tensor:
        """``sum_i ||P^T r_i||^2`` with P weighted by n_k/n and by 1/K, and ``sum_i ||r_i||^2``."""
        rows = torch.stack([*batch.squares_along, batch.projected.squares], 1)
        return batch.by_class(rows).mT


class ResidualSums(Statistic):
    """The sum of the residuals of each class; zero unless features changed between the sweeps."""

    name = "residuals"

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """One row per class."""
        return K, d

    def add_to(self, total: Tensor, batch: ResidualBatch) -> None:
        """Add residuals to the rows of their classes alone."""
        batch.add_residuals(total)


class DecisionCounts(Statistic):
    """What a classifier decides, compared with the nearest class mean and with the labels.

    The class means are those of the layer at which it is summed, be it the classifier's input or
    another.

    Args:
        classifier: The point at the classifier's input.
    """

    def __init__(self, classifier: Point) -> None:
        self.classifier, self.name = classifier, f"decisions at {classifier}"

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """Nine numbers per class."""
        return 9, K

    def of(self, batch: ResidualBatch) -> Tensor:
        """Nine rows by class.

        Samples that W h + b does not assign to the nearest class mean, and those it gets right; the
        same two of the output, and of the output read as a probability; samples whose output is not
        W h + b, those whose output is no probability, and those whose output is NaN.
        """
        decided = batch.decided[self.classifier]
        chosen, flags = decided[:3], decided[3:].bool()
        pairs = [row for by in chosen for row in (by != batch.nearest, by == batch.labels)]
        return batch.by_class(torch.stack([*pairs, *flags], 1)).mT


# what `ClassGeometry` is made of, summed at every layer
GEOMETRY = (ClassSums(), ResidualSquares())


def require_statistics(given: Iterable[Any]) -> None:
    """Raise unless these are statistics, and none has the name of another of ours.

    Raises:
        TypeError: If something else is among them.
        ValueError: If one has the name of one of ours, but is another.
    """
    if not isinstance(given, Iterable):
        raise TypeError(f"statistics must be a tuple of objects of Statistic, got {shown(given)}.")
    ours = {each.name: each for each in (*GEOMETRY, ResidualSums())}
    for each in given:
        if not isinstance(each, Statistic):
            raise TypeError(f"statistics must be objects of Statistic, got {shown(each)}.")
        require_same(each, ours.get(each.name, each))
