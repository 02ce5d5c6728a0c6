"""Statistics: sums over samples at a layer. This is the one place to add another.

A measure declares the statistics that it needs. A pass takes the union of all declared statistics,
sums each once per layer, over batches and over processes, and hands the totals to the measures by
name.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ProjectedResiduals,
    project_residuals,
    residual_blocks,
)
from lightning_nc.functional.class_sums import (
    add_by_class,
    add_features,
    class_counts,
    class_sums,
    sum_by_class,
)
from lightning_nc.functional.classifier import nearest_class_centers
from lightning_nc.functional.powers_of_two import in_units_of, scale_of
from lightning_nc.functional.separating_directions import (
    SeparatingDirections,
    separating_directions,
)
from lightning_nc.network.points import Point
from lightning_nc.passes.sums import Sums


class Centres(NamedTuple):
    """What is known of a layer after the first sweep.

    Attributes:
        counts: Samples per class, n_k, shape ``(K,)``.
        means: Final class means mu_k in units of ``scale``, shape ``(K, d)``.
        directions: The directions along which the means differ.
        scale: The unit of lengths, a power of two, as in `ClassGeometry`.
    """

    counts: Tensor
    means: Tensor
    directions: SeparatingDirections
    scale: float


def centres_of(counts: Tensor, sums: Tensor) -> Centres:
    """The class means and the directions along which they differ.

    Args:
        counts: Samples per class, n_k, shape ``(K,)``.
        sums: Sum of the features of each class, shape ``(K, d)``; it becomes the means, in place.
    """
    means = sums.div_(counts[:, None])
    scale = float(scale_of(means))
    means = in_units_of(scale, means)
    return Centres(counts, means, separating_directions(counts, means), scale)


class LayerBatch:
    """The features of a batch at one layer, for statistics of the first sweep.

    Args:
        features: ``h_i``, as the network computed them, shape ``(n, d)``.
        labels: Class indices, shape ``(n,)``.
        num_classes: Number of classes K.
        classes: The labels of the classes in the source, on the device of the class indices, shape
            ``(K,)``; None for 0 .. K - 1.
    """

    def __init__(
        self, features: Tensor, labels: Tensor, num_classes: int, classes: Tensor | None = None
    ) -> None:
        self.features, self.labels, self.num_classes = features, labels, num_classes
        self.classes = classes

    @property
    def source_labels(self) -> Tensor:
        """The labels as they are in the source, such as numbers of tokens, shape ``(n,)``."""
        return self.labels if self.classes is None else self.classes[self.labels]

    @property
    def counts(self) -> Tensor:
        """Samples per class, shape ``(K,)``, float64."""
        return class_counts(self.labels, self.num_classes)

    def by_class(self, values: Tensor) -> Tensor:
        """Sum values over each class: shape ``(n,)`` to ``(K,)``, or ``(n, m)`` to ``(K, m)``."""
        return sum_by_class(values, self.labels, self.num_classes)


class ResidualBatch(LayerBatch):
    """The features of a batch at one layer in the second sweep, when class means are final.

    Its features, means and residuals are in units of ``centres.scale``, which is 1 unless features
    are very large or small.

    Args:
        features: ``h_i``, as the network computed them, shape ``(n, d)``.
        labels: Class indices, shape ``(n,)``.
        centres: Class means and directions of the layer.
        decided: What classifiers decide for these samples, by the point at their input: class
            indices (-1 for classes that are not measured) in three rows, then two rows of flags,
            as in `decisions`, shape ``(5, n)``.
        classes: As in `LayerBatch`.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        centres: Centres,
        decided: Mapping[Point, Tensor] = MappingProxyType({}),
        classes: Tensor | None = None,
    ) -> None:
        features = in_units_of(centres.scale, features)
        super().__init__(features, labels, len(centres.counts), classes)
        self.centres, self.decided = centres, decided

    @cached_property
    def projected(self) -> ProjectedResiduals:
        """Residuals ``r_i = h_i - mu_{y_i}``, projected and squared in one step."""
        means, Q = self.centres.means, self.centres.directions.basis
        return project_residuals(self.features, self.labels, means, Q)

    @cached_property
    def squares_along(self) -> tuple[Tensor, Tensor]:
        """Squared residuals along the directions of D and of NC1, each of shape ``(n,)``."""
        return self.centres.directions.squares(self.projected.along)

    @cached_property
    def nearest(self) -> Tensor:
        """The class whose mean is nearest to each sample, shape ``(n,)``."""
        return nearest_class_centers(self.features, self.centres.means)

    @cached_property
    def residuals(self) -> Tensor:
        """Residuals ``r_i``, shape ``(n, d)``, float64; they need much memory in wide layers."""
        return self.features.double() - self.centres.means.index_select(0, self.labels)


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
        means, labels = batch.centres.means, batch.labels
        for columns, r in residual_blocks(batch.features, labels, means):
            add_by_class(total[:, columns], r, labels)


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
        """Eight numbers per class."""
        return 8, K

    def of(self, batch: ResidualBatch) -> Tensor:
        """Eight rows by class.

        Samples that W h + b does not assign to the nearest class mean, and those it gets right; the
        same two of the output, and of the output read as a probability; samples whose output is not
        W h + b; and those whose output is no probability.
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
