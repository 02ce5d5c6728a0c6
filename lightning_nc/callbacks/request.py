"""What a callback asks of a measurement, and what it is told."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.probe.layers import Layers, Pool


class Request(NamedTuple):
    """What one callback wants to know.

    Attributes:
        layers: Layers whose geometry it wants; None for none.
        pool: Makes features of layers that have no callable of their own.
        classifier: Whether it wants the last-layer features and the classifier.
        head: Name of the classifier; None to find it.
        tally: Numbers per class of this process, given K, that are added up over processes.
    """

    layers: Layers | None = None
    pool: Pool | None = None
    classifier: bool = False
    head: str | None = None
    tally: Callable[[int], Tensor] | None = None


class ClassifierGeometry(NamedTuple):
    """The last layer: its features and the classifier on them.

    Attributes:
        features: Geometry of the classifier's input.
        weight: Classifier W, shape ``(K, d)``; a one-logit head read as two rows.
        bias: Classifier bias b, shape ``(K,)``; None without one.
        mismatch: Share of samples whose nearest class centre the classifier does not choose.
        class_accuracy: Share of samples of each class that it chooses, shape ``(K,)``.
        is_affine: Whether the head's output is W h + b; if not, its decisions are other ones.
    """

    features: ClassGeometry
    weight: Tensor
    bias: Tensor | None
    mismatch: Tensor
    class_accuracy: Tensor
    is_affine: bool

    @property
    def accuracy(self) -> Tensor:
        """Share of samples whose class the classifier chooses."""
        n_k = self.features.counts
        return (n_k * self.class_accuracy).sum() / n_k.sum()


class Answer(NamedTuple):
    """What a request is told.

    Attributes:
        layers: Geometry of its layers by name, in depth.
        classifier: The last layer, if it was wanted.
        counts: Samples of the probe per class, n_k, shape ``(K,)``.
        tally: The sum of its tally over processes, shape ``(K,)``.
    """

    layers: dict[str, ClassGeometry]
    classifier: ClassifierGeometry | None
    counts: Tensor
    tally: Tensor | None = None
