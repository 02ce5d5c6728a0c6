"""Local elasticity, watched while a network trains."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch

from lightning_nc.callbacks.elasticity_pass import ElasticityPass
from lightning_nc.callbacks.geometry_callback import Drawing, Evaluation, GeometryCallback
from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.processes import require_whole_parameters
from lightning_nc.callbacks.request import Answer, KernelAnswer, KernelRequest, Parameters, Request
from lightning_nc.callbacks.schedule import When
from lightning_nc.figures import over_epochs_figure, similarity_figure
from lightning_nc.functional.gradient_kernel import Outputs, require_outputs, slow_layers
from lightning_nc.functional.local_elasticity import (
    class_effects,
    relative_of,
    relative_ratio,
)
from lightning_nc.functional.loss_gradients import Loss
from lightning_nc.probe.data import Probe

_MANY = 100  # backward passes, of which users should know


class LocalElasticity(GeometryCallback):
    r"""Log whether a gradient step on one sample moves its own class more than others.

    Of a few samples per class, the tangent kernel is computed exactly: how a step that raises an
    output at one sample raises it at another. Training is left as it was, bit by bit.

    ============================================== ===============================================
    Logged key                                     Value
    ============================================== ===============================================
    ``elasticity/{p}/relative_ratio``              Strength: 1/2 without local elasticity, up to 1
    ``elasticity/{p}/relative_ratio_self_pairs``   The same where a sample with itself is a pair
    ``elasticity/{p}/intra``                       alpha: what a unit step does within its class
    ``elasticity/{p}/inter``                       beta: what it does to samples of other classes
    ``elasticity/{p}/relative_similarity_intra``   With ``relative_similarity``: mean S_rel
    ``elasticity/{p}/relative_similarity_inter``   of steps on the loss, within and between classes
    ``elasticity/{p}/relative_similarity_seconds`` With it: what it cost
    ``elasticity/{p}/epochs_completed``            When
    ``elasticity/{p}/seconds``                     What it cost in all
    ``elasticity/{p}/failures``                    How many were skipped
    ============================================== ===============================================

    ``{p}`` is the probe's name. Also drawn: the normalised kernel, class by class, and the ratio
    over epochs. ``intra`` and ``inter`` are mean changes of a logit per unit of learning rate and
    of its gradient; classes separate where the first is larger.

    It costs one backward pass per output on ``samples_per_class * max_classes`` samples, without
    gradients by weights being stored, and less for each with more processes. The network runs in
    evaluation mode, in the precision of its parameters (float32 if that is half), without autocast.

    Args:
        samples_per_class: Samples of each class, the first of the probe.
        max_classes: Of so many classes, drawn by the probe's seed.
        outputs: ``"all"``; or a number of random directions, the same for all samples, that
            estimate the sum over all; or a function of the network's output that gives one number
            per sample.
        relative_similarity: Whether to log S_rel of small steps on the loss, at about the same
            cost again.
        parameters: Names or globs of the parameters that are stepped on, all that are trained by
            default; ``"last_layer"`` takes the classifier's alone, from one forward pass, and its
            own outputs, whatever the network makes of them.
        loss: ``loss(outputs, labels)`` of the steps; by default cross-entropy of logits.
        head: Name of the classifier, for ``parameters="last_layer"``.
        probe: ``"train"``, ``"val"``, ``"test"``, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last.
        epochs: Epochs completed at which to measure instead; 0 is before training.
        when: ``"train_epoch_end"`` or ``"validation_end"``.
        figures: Whether to log figures.
        on_error: ``"warn"`` skips a measurement that fails and trains on, ``"raise"`` stops.

    Raises:
        ValueError: If arguments are out of range or contradict each other.

    Example::

        trainer = Trainer(callbacks=[LocalElasticity(every_n_epochs=10)])

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR; Chen, He & Su (2020),
        "Label-aware neural tangent kernel: toward better generalization and local elasticity",
        NeurIPS.
    """

    family = "elasticity"
    passes = ElasticityPass

    def __init__(
        self,
        samples_per_class: int = 5,
        max_classes: int = 10,
        outputs: Outputs = "all",
        relative_similarity: bool = False,
        parameters: Parameters = None,
        loss: Loss | None = None,
        head: str | None = None,
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: bool = True,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__(probe, every_n_epochs, epochs, when, figures, on_error)
        require_outputs(outputs)
        if samples_per_class < 2 or max_classes < 2:
            raise ValueError(
                "Local elasticity compares pairs within and between classes, and needs "
                "samples_per_class and max_classes of 2 or more, got "
                f"{samples_per_class} and {max_classes}."
            )
        if self.probe.batch_norm == "batch":
            raise ValueError(
                'With Probe(batch_norm="batch") the outputs of a sample depend on others, and it '
                "has no gradient of its own: give LocalElasticity a probe without."
            )
        if parameters == "last_layer" and outputs != "all":
            raise ValueError(
                'parameters="last_layer" has a closed form for all outputs: leave out outputs=.'
            )
        if relative_similarity and callable(outputs):
            raise ValueError(
                "relative_similarity is of all outputs, or a number of directions; leave it out "
                "for a function of the outputs."
            )
        self.kernel = KernelRequest(
            samples_per_class, max_classes, outputs, parameters, relative_similarity, loss
        )
        self.head = head

    def request(self) -> Request:
        """The gradients of a few samples, compared."""
        of_last_layer = self.kernel.parameters == "last_layer"
        return Request(classifier=of_last_layer, head=self.head, kernel=self.kernel)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """As of all callbacks; and refuse networks whose parameters are in parts."""
        super().setup(trainer, pl_module, stage)
        if self.kernel.parameters != "last_layer":
            require_whole_parameters(trainer, type(self).__name__)

    def evaluate(self, answer: Answer) -> Evaluation:
        """Ratios and effects."""
        assert answer.kernel is not None
        found, probe = answer.kernel, self.prefix()
        K, y = found.kernel.cpu(), found.labels
        effects = class_effects(K / found.num_outputs, y)
        scalars = {
            "relative_ratio": relative_ratio(K, y),
            "relative_ratio_self_pairs": relative_ratio(K, y, self_pairs=True),
            "intra": effects.intra,
            "inter": effects.inter,
        }
        if found.moves is not None:
            of_steps = class_effects(relative_of(found.moves.cpu()), y)
            scalars["relative_similarity_intra"] = of_steps.intra
            scalars["relative_similarity_inter"] = of_steps.inter
        undefined = [name for name, value in scalars.items() if not bool(value.isfinite())]
        values = {probe + name: float(value) for name, value in scalars.items()}
        if found.moves is not None:
            values[probe + "relative_similarity_seconds"] = found.seconds_of_moves
        arrays = {"kernel": K, "labels": y}
        return Evaluation(values, arrays, self._notes(found, undefined))

    def draw(self, measurement: Measurement) -> dict[str, Drawing]:
        """The kernel class by class, and the ratio over epochs."""
        return {
            self.prefix() + "kernel": partial(self._draw_kernel, measurement),
            self.prefix() + "ratio": partial(self._draw_ratio, measurement),
        }

    def _draw_kernel(self, measurement: Measurement) -> Any:
        title = self.title("Tangent kernel", measurement)
        kernel, labels = measurement.arrays["kernel"], measurement.arrays["labels"]
        return similarity_figure(kernel, labels, title)

    def _draw_ratio(self, measurement: Measurement) -> Any:
        of_pairs, with_self = (
            self.over_epochs(measurement, self.prefix() + key)
            for key in ("relative_ratio", "relative_ratio_self_pairs")
        )
        return over_epochs_figure(
            self.epochs(measurement),
            {"pairs of different samples": of_pairs, "with self pairs": with_self},
            {"no local elasticity": 0.5},
            "relative ratio",
            self.title("Local elasticity over epochs"),
        )

    def _notes(self, found: KernelAnswer, undefined: list[str]) -> dict[str, str]:
        notes = {}
        if undefined:
            notes["undefined"] = f"{', '.join(undefined)} are undefined (NaN): {_why(found)}."
        if found.one_by_one:
            notes["slow"] = (
                f"{slow_layers(found.one_by_one)}; parameters=[...] can leave them out, and "
                '"last_layer" takes one forward pass.'
            )
        elif found.by_network:
            notes["slow"] = (
                f"{', '.join(map(repr, found.by_network[:5]))} are used outside of a layer that "
                "holds them, so that the whole network is differentiated for each sample, which "
                "is slower; parameters=[...] can leave them out."
            )
        if self.kernel.outputs == "all" and found.num_outputs > _MANY:
            notes["many"] = (
                f"{found.num_outputs} outputs take as many backward passes in each measurement; "
                "outputs=20 estimates the same from 20 random directions."
            )
        return notes


def _why(found: KernelAnswer) -> str:
    counts = found.labels.bincount()
    if int(counts.max()) < 2:
        return "no class has two samples in the probe"
    if not bool((found.kernel.diagonal() > 0).all()):
        return "the outputs of some samples do not depend on the parameters"
    if found.moves is not None and not bool((found.moves.diagonal() > 0).all()):
        return "steps on the loss of some samples do not move them: their loss is zero"
    return (
        "the mean kernel between classes is not positive, steps on one class push the others the "
        "other way"
        if bool(torch.isfinite(found.kernel).all())
        else "gradients are not finite"
    )
