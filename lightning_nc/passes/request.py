"""What a measure requests from a pass over the probe, and the answer that it receives."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.gradient_kernel import Outputs
from lightning_nc.functional.loss_gradients import Loss
from lightning_nc.network.points import Layers, Pool
from lightning_nc.passes.statistics import Statistic

Parameters = Sequence[str] | Literal["last_layer"] | None


class DoesNotApply(ValueError):
    """A request that no measurement of this network or of these data can meet."""


class KernelRequest(NamedTuple):
    """The gradients that a measure needs compared.

    Attributes:
        samples_per_class: Number of samples of each class.
        max_classes: Largest number of classes.
        outputs: Outputs of the network whose gradients are taken.
        parameters: Names or globs of the parameters that count, ``"last_layer"``, or None for all
            that are trained.
        relative_similarity: Whether to compare steps on the loss as well.
        loss: The loss of these steps; None for cross-entropy.
    """

    samples_per_class: int = 5
    max_classes: int = 10
    outputs: Outputs = "all"
    parameters: Parameters = None
    relative_similarity: bool = False
    loss: Loss | None = None


class Request(NamedTuple):
    """What one measure requests.

    Attributes:
        layers: Layers that are measured; None for none.
        pool: Makes (N, d) features of layers that have no callable of their own.
        classifier: Whether the last-layer features and the classifier are needed.
        head: Name of the head; None to find it, False to do without.
        needs_head: Whether the request cannot be met without a head.
        statistics: Sums needed at these points besides those of `ClassGeometry`.
        mismatches: Whether the decisions of the classifier are needed, compared with the nearest
            class mean of each layer.
        geometry: Whether the geometry of the layers is needed. If not, their statistics alone are
            taken, in the first sweep, and no mean of any class.
        tokens: Whether labels ought to be the next tokens of a text; others are told.
        tally: Returns numbers by label on this process, given the number of labels; they are
            summed over processes.
        kernel: Gradients that a `GradientPass` compares; None for a `GeometryPass`.
    """

    layers: Layers | None = None
    pool: Pool = "auto"
    classifier: bool = False
    head: str | Literal[False] | None = None
    needs_head: bool = False
    statistics: tuple[Statistic, ...] = ()
    mismatches: bool = False
    geometry: bool = True
    tokens: bool = False
    tally: Callable[[int], Tensor] | None = None
    kernel: KernelRequest | None = None


class ClassifierGeometry(NamedTuple):
    """The geometry of last-layer features, and the classifier, which a network may not have.

    Attributes:
        features: Geometry of the last-layer features, the classifier's input.
        weight: Rows of the classifier W that belong to the K classes, shape ``(K, d)``; a one-logit
            head is read as two rows. None if the network has no head, as are the next three.
        bias: Classifier bias b, shape ``(K,)``; also None for a head without one.
        mismatch: Share of samples that the classifier does not assign to the nearest class mean, a
            scalar.
        class_accuracy: Share of samples of each class that it gets right, shape ``(K,)``.
        is_affine: Whether the head computes W h + b. If the network outputs that, W h + b decides,
            in float64; otherwise the network's output does. All rows take part in decisions.
    """

    features: ClassGeometry
    weight: Tensor | None = None
    bias: Tensor | None = None
    mismatch: Tensor | None = None
    class_accuracy: Tensor | None = None
    is_affine: bool = True

    @property
    def accuracy(self) -> Tensor | None:
        """Share of samples that the classifier gets right, a scalar; None without a head."""
        if self.class_accuracy is None:
            return None
        n_k = self.features.counts
        return (n_k * self.class_accuracy).sum() / n_k.sum()


class KernelAnswer(NamedTuple):
    """The comparison of the gradients of m samples.

    Attributes:
        kernel: Trace of the tangent kernel, shape ``(m, m)``.
        labels: Labels of the samples, as the data have them, shape ``(m,)``.
        moves: How far a step on the loss of sample i moves the outputs at sample j, in entry
            (j, i), in a unit of its own for each i, shape ``(m, m)``; None if not requested.
        num_outputs: Number of outputs C.
        one_by_one: Modules whose gradients took a backward pass per sample, each with the reason.
        by_network: Parameters for which the whole network was run for each sample.
        seconds_of_moves: Seconds that the moves took on this process.
        seconds_each: Seconds that a direction was expected to take on this process.
    """

    kernel: Tensor
    labels: Tensor
    moves: Tensor | None
    num_outputs: int
    one_by_one: Mapping[str, str] = MappingProxyType({})
    by_network: Sequence[str] = ()
    seconds_of_moves: float = 0.0
    seconds_each: float = 0.0


class Answer(NamedTuple):
    """What a pass has found for one request.

    Attributes:
        layers: Geometry of the requested layers by name, in order of depth; empty if the request
            does without.
        classifier: The last-layer features and the classifier; None if not requested.
        counts: Samples of the probe per class, n_k, shape ``(K,)``.
        tally: The tally summed over processes, by label, also of classes that are not measured;
            None if not requested.
        mismatches: Share of samples that the classifier does not assign to the nearest class mean
            of a layer, a scalar, by layer; empty if not requested or without a head.
        kernel: The comparison of gradients; None if not requested.
        classes: Labels of the K classes, ascending, shape ``(K,)``; None for 0 .. K - 1.
        class_names: Their names, in the same order: those of the dataset, or the labels; empty if
            the dataset tells none and the labels are 0 .. K - 1.
        notes: Sentences on what was left out, by topic.
        pooling: How layers are pooled, in words by name, where that was chosen and they are not
            merely flattened.
        statistics: The statistics of layers by name, in order of depth, if the request does without
            geometry; otherwise they are with the geometry.
    """

    layers: dict[str, ClassGeometry]
    classifier: ClassifierGeometry | None
    counts: Tensor
    tally: Tensor | None = None
    mismatches: Mapping[str, Tensor] = MappingProxyType({})
    kernel: KernelAnswer | None = None
    classes: Tensor | None = None
    class_names: tuple[str, ...] = ()
    notes: Mapping[str, str] = MappingProxyType({})
    pooling: Mapping[str, str] = MappingProxyType({})
    statistics: Mapping[str, Mapping[str, Tensor]] = MappingProxyType({})

    @property
    def labels(self) -> Tensor:
        """Labels of the K classes, ascending, shape ``(K,)``."""
        return torch.arange(len(self.counts)) if self.classes is None else self.classes
