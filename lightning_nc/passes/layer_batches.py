"""A batch of features at one layer, as statistics of the first and of the second sweep see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from lightning_nc.functional.class_geometry import ProjectedResiduals, project_residuals
from lightning_nc.functional.class_sums import ClassMembers
from lightning_nc.functional.classifier import NearestCenter
from lightning_nc.functional.powers_of_two import in_units_of, scale_of
from lightning_nc.functional.separating_directions import (
    SeparatingDirections,
    separating_directions,
)
from lightning_nc.network.points import Point


@dataclass(frozen=True)
class Centres:
    """What is known of a layer after the first sweep.

    Attributes:
        counts: Samples per class, n_k, shape ``(K,)``.
        means: Final class means mu_k in units of ``scale``, shape ``(K, d)``.
        directions: The directions along which the means differ.
        scale: The unit of lengths, a power of two, as in `ClassGeometry`.
        first: Returns what requests have summed in the first sweep, by name.
    """

    counts: Tensor
    means: Tensor
    directions: SeparatingDirections
    scale: float
    first: Callable[[], Mapping[str, Tensor]]

    @cached_property
    def nearest(self) -> NearestCenter:
        """Decides for the nearest class mean, of samples in the same units."""
        return NearestCenter(self.means)

    @cached_property
    def statistics(self) -> Mapping[str, Tensor]:
        """What requests have summed in the first sweep, by name, of features as they are."""
        return self.first()


def centres_of(counts: Tensor, sums: Tensor, first: Callable[[], Mapping[str, Tensor]]) -> Centres:
    """The class means and the directions along which they differ.

    Args:
        counts: Samples per class, n_k, shape ``(K,)``.
        sums: Sum of the features of each class, shape ``(K, d)``; it becomes the means, in place.
        first: Returns what requests have summed in the first sweep, by name.
    """
    means = sums.div_(counts[:, None])
    scale = float(scale_of(means))
    means = in_units_of(scale, means)
    return Centres(counts, means, separating_directions(counts, means), scale, first)


class LayerBatch:
    """The features of a batch at one layer, for statistics of the first sweep.

    Args:
        features: ``h_i``, as the network computed them, shape ``(n, d)``.
        labels: Class indices, shape ``(n,)``.
        num_classes: Number of classes K.
        places: Which of the N samples of the probe these are, from 0, whichever process has them,
            shape ``(n,)``.
        classes: The labels of the classes in the source, on the device of the class indices, shape
            ``(K,)``.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        places: Tensor,
        classes: Tensor,
    ) -> None:
        self.features, self.labels, self.num_classes = features, labels, num_classes
        self.places, self.classes = places, classes

    @property
    def source_labels(self) -> Tensor:
        """The labels as they are in the source, such as numbers of tokens, shape ``(n,)``."""
        return self.classes[self.labels]

    @cached_property
    def members(self) -> ClassMembers:
        """Which samples are of which class."""
        return ClassMembers(self.labels, self.num_classes)

    @property
    def counts(self) -> Tensor:
        """Samples per class, shape ``(K,)``, float64."""
        return self.members.counts

    def by_class(self, values: Tensor) -> Tensor:
        """Sum values over each class: shape ``(n,)`` to ``(K,)``, or ``(n, m)`` to ``(K, m)``."""
        return self.members.sums_of(values)


class ResidualBatch(LayerBatch):
    """The features of a batch at one layer in the second sweep, when class means are final.

    Its features, means and residuals are in units of ``centres.scale``, which is 1 unless features
    are very large or small.

    Args:
        features: ``h_i``, as the network computed them, shape ``(n, d)``.
        labels: Class indices, shape ``(n,)``.
        centres: Class means and directions of the layer, and the statistics of the first sweep.
        places: As in `LayerBatch`.
        decided: What classifiers decide for these samples, by the point at their input: class
            indices (-1 for classes that are not measured) in three rows, then three rows of flags,
            as in `HeadDecisions`, shape ``(6, n)``.
        classes: As in `LayerBatch`.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        centres: Centres,
        places: Tensor,
        decided: Mapping[Point, Tensor],
        classes: Tensor,
    ) -> None:
        features = in_units_of(centres.scale, features)
        super().__init__(features, labels, len(centres.counts), places, classes)
        self.centres, self.decided = centres, decided
        self._projected: ProjectedResiduals | None = None

    @property
    def projected(self) -> ProjectedResiduals:
        """Residuals ``r_i = h_i - mu_{y_i}``, projected and squared in one step."""
        return self._project(None) if self._projected is None else self._projected

    def add_residuals(self, sums: Tensor) -> None:
        """Add the residuals of each class to sums, ``(K, d)``, as they are projected."""
        self._project(sums)

    def _project(self, sums: Tensor | None) -> ProjectedResiduals:
        means, Q = self.centres.means, self.centres.directions.basis
        self._projected = project_residuals(self.features, self.members, means, Q, sums)
        return self._projected

    @cached_property
    def squares_along(self) -> tuple[Tensor, Tensor]:
        """Squared residuals along the directions of D and of NC1, each of shape ``(n,)``."""
        return self.centres.directions.squares(self.projected.along)

    @cached_property
    def nearest(self) -> Tensor:
        """The class whose mean is nearest to each sample, shape ``(n,)``."""
        return self.centres.nearest.of(self.features)

    @cached_property
    def residuals(self) -> Tensor:
        """Residuals ``r_i``, shape ``(n, d)``, float64; they need much memory in wide layers."""
        return self.features.double() - self.centres.means.index_select(0, self.labels)
