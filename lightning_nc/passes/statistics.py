"""Sums over samples at a layer: what a pass adds up, and the one place to add another.

A measure declares the statistics that it needs. A pass takes the union of what is declared, adds
each up once at each layer, over batches and over processes, and hands the totals to the measures by
name.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import (
    ProjectedResiduals,
    SeparatingDirections,
    class_members,
    class_sums,
    project_residuals,
    separating_directions,
)
from lightning_nc.functional.classifier import classifier_decisions, nearest_class_centers


class Centres(NamedTuple):
    """What the first sweep has settled at a layer.

    Attributes:
        counts: Samples per class, n_k, shape ``(K,)``.
        means: Final class means mu_k, shape ``(K, d)``.
        directions: Along which the means differ.
        P: The columns to project residuals on, shape ``(d, m)``.
    """

    counts: Tensor
    means: Tensor
    directions: SeparatingDirections
    P: Tensor


def centres_of(counts: Tensor, sums: Tensor) -> Centres:
    """Means and directions, from the counts and sums of each class."""
    means = sums / counts[:, None]
    directions = separating_directions(counts, means)
    return Centres(counts, means, directions, directions.stacked)


class LayerBatch:
    """The features of a batch at one layer, for statistics of the first sweep.

    Args:
        features: ``h_i``, as the network gave them, shape ``(n, d)``.
        labels: Class indices, shape ``(n,)``.
        num_classes: Number of classes K.
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        self.features, self.labels, self.num_classes = features, labels, num_classes

    @cached_property
    def members(self) -> Tensor:
        """1 where sample i is of class k, shape ``(K, n)``, float64."""
        return class_members(self.labels, self.num_classes)

    def by_class(self, values: Tensor) -> Tensor:
        """The sum of values of samples over each class: shape ``(n, ...)`` to ``(K, ...)``."""
        return self.members @ values.double()


class ResidualBatch(LayerBatch):
    """The same in the second sweep, when class means are final.

    Args:
        features: ``h_i``, as the network gave them, shape ``(n, d)``.
        labels: Class indices, shape ``(n,)``.
        centres: Means and directions of the layer.
        sum_residuals: Whether a statistic wants residuals added up.
        classifier: Rows and biases of the classifier, where the layer is its input.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        centres: Centres,
        sum_residuals: bool = False,
        classifier: tuple[Tensor, Tensor | None] | None = None,
    ) -> None:
        super().__init__(features, labels, len(centres.counts))
        self.centres, self.classifier = centres, classifier
        self._sum_residuals = sum_residuals

    @cached_property
    def projected(self) -> ProjectedResiduals:
        """Residuals ``r_i = h_i - mu_{y_i}``, projected, squared and added up in one go."""
        means, P = self.centres.means, self.centres.P
        return project_residuals(self.features, self.labels, means, P, self._sum_residuals)

    @cached_property
    def squares_along(self) -> tuple[Tensor, Tensor]:
        """Squared residuals along the directions of D and along those of NC1, shape ``(n,)``."""
        return self.centres.directions.squares(self.projected.along)

    @cached_property
    def residuals(self) -> Tensor:
        """The residuals themselves, shape ``(n, d)``, float64; wide layers take much memory."""
        return self.features.double() - self.centres.means.index_select(0, self.labels)


class Statistic(ABC):
    """A sum over samples at a layer, of which a measure makes numbers.

    A statistic of your own is a subclass with a name, a shape, and what one batch adds; name it in
    the `Request` of a measure, whose `Answer` then has the total under that name in
    ``answer.layers[layer].statistics``.

    Attributes:
        name: Unlike those of other statistics.
        second_sweep: Whether it needs final class means: `of` is then given a `ResidualBatch`.

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

    @abstractmethod
    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """Shape of the sum, for K classes and d features; the same on all processes."""

    @abstractmethod
    def of(self, batch: "ResidualBatch") -> Tensor:
        """What one batch adds, of that shape."""


class ClassSums(Statistic):
    """Features of each class, added up."""

    name = "sums"
    second_sweep = False

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """A row per class."""
        return K, d

    def of(self, batch: LayerBatch) -> Tensor:
        """``sum_i h_i`` by class."""
        return class_sums(batch.features, batch.labels, batch.num_classes).sums


class FuzzinessSquares(Statistic):
    """Squared residuals along the directions of D."""

    name = "fuzziness"

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """A number per class."""
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
    """Residuals of each class, added up: zero, unless features changed between the sweeps."""

    name = "residuals"

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """A row per class."""
        return K, d

    def of(self, batch: ResidualBatch) -> Tensor:
        """``sum_i r_i`` by class."""
        sums = batch.projected.class_sums
        assert sums is not None
        return sums


class Decisions(Statistic):
    """Which samples the classifier gives to the nearest class centre, and which it gets right."""

    name = "decisions"

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """Two numbers per class."""
        return 2, K

    def of(self, batch: ResidualBatch) -> Tensor:
        """Samples of each class not given to the nearest centre; samples of each given to it."""
        assert batch.classifier is not None
        decided = classifier_decisions(batch.features, *batch.classifier)
        nearest = nearest_class_centers(batch.features, batch.centres.means)
        which = torch.stack([decided != nearest, decided == batch.labels], 1)
        return batch.by_class(which).mT


# what `ClassGeometry` is made of, at every layer
GEOMETRY = (FuzzinessSquares(), CollapseSquares(), Squares())
