"""What a measure requests from a pass over the probe, and the answer that it receives."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.gradient_kernel import Outputs
from lightning_nc.functional.loss_gradients import Loss
from lightning_nc.network.points import Layers, Pool
from lightning_nc.passes.statistics import Statistic

Parameters = Sequence[str] | Literal["last_layer"] | None


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

    samples_per_class: int
    max_classes: int
    outputs: Outputs
    parameters: Parameters
    relative_similarity: bool
    loss: Loss | None


class Request(NamedTuple):
    """What one measure requests.

    Attributes:
        layers: Layers whose geometry is needed; None for none.
        pool: Makes (N, d) features of layers that have no callable of their own.
        classifier: Whether the last-layer features and the classifier are needed.
        head: Name of the head; None to find it.
        statistics: Sums needed at these points besides those of `ClassGeometry`.
        tally: Returns numbers per class on this process, given K, shape ``(K,)``; they are summed
            over processes.
        kernel: Gradients that a `GradientPass` compares; None for a `GeometryPass`.
    """

    layers: Layers | None = None
    pool: Pool | None = None
    classifier: bool = False
    head: str | None = None
    statistics: tuple[Statistic, ...] = ()
    tally: Callable[[int], Tensor] | None = None
    kernel: KernelRequest | None = None


class ClassifierGeometry(NamedTuple):
    """The classifier, and the geometry of its input.

    Attributes:
        features: Geometry of the classifier's input.
        weight: Classifier W, shape ``(K, d)``; a one-logit head is read as two rows.
        bias: Classifier bias b, shape ``(K,)``; None without one.
        mismatch: Share of samples that W h + b does not assign to the nearest class mean, a scalar.
        class_accuracy: Share of samples of each class that W h + b gets right, shape ``(K,)``.
        is_affine: Whether the head's output is W h + b; if not, it may decide otherwise.
    """

    features: ClassGeometry
    weight: Tensor
    bias: Tensor | None
    mismatch: Tensor
    class_accuracy: Tensor
    is_affine: bool

    @property
    def accuracy(self) -> Tensor:
        """Share of samples that W h + b gets right, a scalar."""
        n_k = self.features.counts
        return (n_k * self.class_accuracy).sum() / n_k.sum()


class KernelAnswer(NamedTuple):
    """The comparison of the gradients of m samples.

    Attributes:
        kernel: Trace of the tangent kernel, shape ``(m, m)``.
        labels: Classes of the samples, shape ``(m,)``.
        moves: How far a step on the loss of sample i moves the outputs at sample j, in entry
            (j, i), in a unit of its own for each i, shape ``(m, m)``; None if not requested.
        num_outputs: Number of outputs C.
        one_by_one: Modules whose gradients took a backward pass per sample, each with the reason.
        by_network: Parameters for which the whole network was run for each sample.
        seconds_of_moves: Seconds that the moves took on this process.
    """

    kernel: Tensor
    labels: Tensor
    moves: Tensor | None
    num_outputs: int
    one_by_one: Mapping[str, str]
    by_network: Sequence[str]
    seconds_of_moves: float


class Answer(NamedTuple):
    """What a pass has found for one request.

    Attributes:
        layers: Geometry of the requested layers by name, in order of depth.
        classifier: The classifier; None if not requested.
        counts: Samples of the probe per class, n_k, shape ``(K,)``.
        tally: The tally summed over processes, shape ``(K,)``; None if not requested.
        kernel: The comparison of gradients; None if not requested.
    """

    layers: dict[str, ClassGeometry]
    classifier: ClassifierGeometry | None
    counts: Tensor
    tally: Tensor | None = None
    kernel: KernelAnswer | None = None
