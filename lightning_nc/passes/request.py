"""What a measure asks of a pass over the probe, and what it is answered."""

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
    """Which gradients a measure wants compared.

    Attributes:
        samples_per_class: Samples of each class.
        max_classes: Number of classes at most.
        outputs: Outputs of the network whose gradients are taken.
        parameters: Names or globs of the parameters that count, ``"last_layer"``, or None for all
            that are trained.
        relative_similarity: Whether steps on the loss are wanted, too.
        loss: That loss; None for cross-entropy.
    """

    samples_per_class: int
    max_classes: int
    outputs: Outputs
    parameters: Parameters
    relative_similarity: bool
    loss: Loss | None


class Request(NamedTuple):
    """What one measure asks for.

    Attributes:
        layers: Layers whose geometry it wants; None for none.
        pool: Makes features of layers that have no callable of their own.
        classifier: Whether it wants the last-layer features and the classifier.
        head: Name of the classifier; None to find it.
        statistics: Sums that it wants at these points besides those of `ClassGeometry`.
        tally: Gives numbers per class of this process, for K classes, which are added up over
            processes.
        kernel: Gradients to compare, by a `GradientPass`; all else is of a `GeometryPass`.
    """

    layers: Layers | None = None
    pool: Pool | None = None
    classifier: bool = False
    head: str | None = None
    statistics: tuple[Statistic, ...] = ()
    tally: Callable[[int], Tensor] | None = None
    kernel: KernelRequest | None = None


class ClassifierGeometry(NamedTuple):
    """The classifier, and the features that it is given.

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


class KernelAnswer(NamedTuple):
    """The gradients of m samples, compared.

    Attributes:
        kernel: Trace of the tangent kernel, shape ``(m, m)``.
        labels: Classes of the samples, shape ``(m,)``.
        moves: How far a step on sample i moves the outputs at sample j, as entries (j, i); None if
            it was not asked for.
        num_outputs: Number of outputs C.
        one_by_one: Modules whose gradients took a backward pass per sample, each with the reason.
        by_network: Parameters for which the whole network was run for each sample.
        seconds_of_moves: Time that the moves took on this process.
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
        layers: Geometry of its layers by name, in depth.
        classifier: The classifier, if it was asked for.
        counts: Samples of the probe per class, n_k, shape ``(K,)``.
        tally: Its tally, added up over processes, shape ``(K,)``.
        kernel: The gradients, compared.
    """

    layers: dict[str, ClassGeometry]
    classifier: ClassifierGeometry | None
    counts: Tensor
    tally: Tensor | None = None
    kernel: KernelAnswer | None = None
