"""Local elasticity, watched while a network trains."""

from collections.abc import Sequence
from typing import Any

from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.record import OnError
from lightning_nc.callbacks.schedule import When
from lightning_nc.callbacks.strategies import require_whole_parameters
from lightning_nc.functional.gradient_kernel import Outputs
from lightning_nc.functional.loss_gradients import Loss
from lightning_nc.measures.local_elasticity import ElasticityMeasure
from lightning_nc.passes.gradient_pass import require_own_outputs
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import Parameters


class LocalElasticity(MeasureCallback):
    """Log whether a gradient step on one sample moves its own class more than others.

    Of a few samples per class, the tangent kernel is computed exactly: how a step that raises an
    output at one sample raises it at another. Training is left as it was, bit by bit.

    Logged under these keys, with the name of the probe for ``{p}``:

    - ``elasticity/{p}/relative_ratio``: How much of a gradient step's effect stays in the sample's
      own class: 1/2 without local elasticity, up to 1.
    - ``elasticity/{p}/relative_ratio_self_pairs``: The relative ratio where a sample with itself
      counts as a pair.
    - ``elasticity/{p}/intra``: Mean change of a logit at samples of the same class, per unit of
      step.
    - ``elasticity/{p}/inter``: Mean change of a logit at samples of other classes, per unit of
      step.
    - ``elasticity/{p}/relative_similarity_intra``: Mean move of samples of the same class by a step
      on the loss of one, by how far it moves that sample itself.
    - ``elasticity/{p}/relative_similarity_inter``: Mean move of samples of other classes by a step
      on the loss of one, by how far it moves that sample itself.
    - ``elasticity/{p}/relative_similarity_seconds``: What steps on the loss cost, within the
      seconds of the measurement.
    - ``elasticity/{p}/...``: ``epochs_completed``, ``seconds``, ``failures`` of each measurement.

    ``intra`` and ``inter`` are mean changes of a logit per unit of learning rate and of its
    gradient; classes separate where the first is larger.

    It costs one backward pass per output on ``samples_per_class * max_classes`` samples, without
    gradients by weights being stored, and less for each process the more there are. The network
    runs in evaluation mode, in the precision of its parameters (float32 if that is half), without
    autocast.

    Args:
        samples_per_class: Samples of each class, the first of the probe.
        max_classes: Number of classes at most; which they are is drawn by the probe's seed.
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
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: ``"train_epoch_end"`` or ``"validation_end"``.
        figures: Whether to log figures.
        on_error: ``"warn"`` skips a measurement that fails and trains on, ``"raise"`` stops the
            run.

    Raises:
        ValueError: If arguments are out of range or contradict each other.

    Example::

        trainer = Trainer(callbacks=[LocalElasticity(every_n_epochs=10)])

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR; Chen, He & Su (2020),
        "Label-aware neural tangent kernel: toward better generalization and local elasticity",
        NeurIPS.
    """

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
        on_error: OnError = "warn",
    ) -> None:
        measure = ElasticityMeasure(
            samples_per_class, max_classes, outputs, relative_similarity, parameters, loss, head
        )
        super().__init__(measure, probe, every_n_epochs, epochs, when, figures, on_error)
        require_own_outputs(self.probe)
        self.parameters = parameters

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """As of all callbacks; and refuse networks whose parameters are in parts."""
        super().setup(trainer, pl_module, stage)
        if self.parameters != "last_layer":
            require_whole_parameters(trainer, type(self).__name__)
