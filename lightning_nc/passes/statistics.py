"""Statistics: sums over samples at a layer. This is the one place to add another.

A measure declares the statistics that it needs. A pass takes the union of all declared statistics,
sums each once per layer, over batches and over processes, and hands the totals to the measures by
name.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nc.functional.class_sums import add_features, class_sums
from lightning_nc.network.points import Point
from lightning_nc.passes.layer_batches import LayerBatch, ResidualBatch
from lightning_nc.passes.sums import Sums


class Statistic(ABC):
    """A sum over samples at a layer, from which a measure computes numbers.

    A statistic of your own is a subclass with a name, a shape, and the contribution of one batch.
    List it in the `Request` of a measure: the `Answer` then holds the total under that name in
    ``answer.layers[layer].statistics``.

    Attributes:
        name: Its name, different from those of all other statistics.
        second_sweep: Whether it needs final class means. If so, `of` receives a `ResidualBatch`,
            otherwise a `LayerBatch`.
        adds_up: Whether those of disjoint samples add up. If not, `combine` makes one of several,
            and each process needs memory for the states of all.

    Example:
        The covariance of features within classes, times the number of samples:

        >>> class Scatter(Statistic):
        ...     name = "scatter"
        ...
        ...     def shape(self, K, d):
        ...         return d, d
        ...
        ...     def of(self, batch):
        ...         return batch.residuals.mT @ batch.residuals
    """

    name: str
    second_sweep: bool = True
    adds_up: bool = True

    @abstractmethod
    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """Shape of the sum for K classes and d features; the same on all processes."""

    def shape_over(self, processes: int, K: int, d: int) -> tuple[int, ...]:
        """Shape of what processes share: the sum, or a slot for the state of each."""
        return self.shape(K, d) if self.adds_up else (processes, *self.shape(K, d))

    def combine(self, states: Tensor) -> Tensor:
        """The statistic of all samples from those of disjoint samples, along the first axis.

        A state of zeros is that of no samples.
        """
        return states.sum(0)

    @abstractmethod
    def of(self, batch: "ResidualBatch") -> Tensor:
        """The contribution of one batch, of that shape."""

    def add_to(self, total: Tensor, batch: Any) -> None:
        """Add the contribution of a batch to the sum, in place.

        Raises:
            ValueError: If its shape is not that of the sum.
        """
        value = self.of(batch)
        if value.shape != total.shape:
            raise ValueError(
                f"a value of shape {tuple(value.shape)} cannot be added to the statistic "
                f"'{self.name}', whose shape is {tuple(total.shape)}."
            )
        value = value.to(total.device)
        if self.adds_up:
            total += value
        else:
            total.copy_(self.combine(torch.stack([total, value])))


class ClassSums(Statistic):
    """The sum of the features of each class."""

    name = "sums"
    second_sweep = False

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """One row per class."""
        return K, d

    def of(self, batch: LayerBatch) -> Tensor:
        """``sum_i h_i`` by class."""
        return class_sums(batch.features, batch.labels, batch.num_classes).sums

    def add_to(self, total: Tensor, batch: LayerBatch) -> None:
        """Add features to the rows of their classes alone: the others are not touched."""
        add_features(total, batch.features, batch.labels)


class FuzzinessSquares(Statistic):
    """Squared residuals along the directions of D."""

    name = "fuzziness"

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """One number per class."""
        return (K,)

    def of(self, batch: ResidualBatch) -> Tensor:
        """``sum_i ||P^T r_i||^2`` by class, P weighted by n_k/n."""
        return batch.by_class(batch.squares_along[0])


class CollapseSquares(FuzzinessSquares):
    """Squared residuals along the directions of NC1."""

    name = "collapse"

    def of(self, batch: ResidualBatch) -> Tensor:
        """``sum_i ||P^T r_i||^2`` by class, P weighted by 1/K."""
        return batch.by_class(batch.squares_along[1])


class Squares(FuzzinessSquares):
    """Squared residuals in all directions."""

    name = "squares"

    def of(self, batch: ResidualBatch) -> Tensor:
        """``sum_i ||r_i||^2`` by class."""
        return batch.by_class(batch.projected.squares)


class ResidualSums(Statistic):
    """The sum of the residuals of each class; zero unless features changed between the sweeps."""

    name = "residuals"

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """One row per class."""
        return K, d

    def of(self, batch: ResidualBatch) -> Tensor:
        """``sum_i r_i`` by class."""
        sums = torch.zeros_like(batch.centres.means)
        self.add_to(sums, batch)
        return sums

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


# the statistics of `ClassGeometry`, summed at every layer
GEOMETRY = (FuzzinessSquares(), CollapseSquares(), Squares())


def add_each(
    sums: Sums,
    place: Hashable,
    statistics: Sequence[Statistic],
    batch: Any,
    broken: dict[Hashable, Exception],
    rank: int = 0,
) -> None:
    """Add the statistics of a batch to the sums; one that fails does not keep others from theirs.

    Args:
        sums: The sums, by place and name of the statistic.
        place: Where the batch is from.
        statistics: What to add.
        batch: What the statistics are of.
        broken: Why statistics have failed, by place and name; they are not tried again.
        rank: The slot of this process in those that do not add up.
    """
    for each in statistics:
        name = (place, each.name)
        if name in broken:
            continue
        try:
            shared = sums.view(name)
            each.add_to(shared if each.adds_up else shared[rank], batch)
        except Exception as error:
            broken[name] = error
