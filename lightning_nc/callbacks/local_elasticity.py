"""Local elasticity, measured while a network trains."""

from collections.abc import Sequence
from typing import Any

from lightning_nc.callbacks.failures import say_inapplicable
from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.record import Figures, OnError
from lightning_nc.callbacks.schedule import When
from lightning_nc.callbacks.strategies import require_whole_parameters
from lightning_nc.functional.gradient_kernel import Outputs
from lightning_nc.functional.loss_gradients import Loss
from lightning_nc.measures.local_elasticity import ElasticityMeasure
from lightning_nc.passes.gradient_pass import require_own_outputs
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import DoesNotApply, Parameters


class LocalElasticity(MeasureCallback):
    """Callback that logs whether a gradient step on a sample moves its own class more than others.

    The tangent kernel of a few samples per class is computed exactly: how much a step that raises
    an output at one sample raises it at another. Training is unchanged, bit for bit.

    Logged under these keys, with the name of the probe for ``{p}``:

    - ``elasticity/{p}/relative_ratio``: How much of a gradient step's effect stays in the sample's
      own class: 1/2 without local elasticity, up to 1.
    - ``elasticity/{p}/relative_ratio_self_pairs``: The relative ratio if each sample also counts as
      a pair with itself.
    - ``elasticity/{p}/intra``: Mean change of a logit at other samples of the same class, per unit
      step.
    - ``elasticity/{p}/inter``: Mean change of a logit at samples of other classes, per unit step.
    - ``elasticity/{p}/relative_similarity_intra``: Mean change of the outputs at other samples of
      the same class by a step on the loss of one sample, divided by the change at that sample.
    - ``elasticity/{p}/relative_similarity_inter``: Mean change of the outputs at samples of other
      classes by a step on the loss of one sample, divided by the change at that sample.
    - ``elasticity/{p}/relative_similarity_seconds``: Duration of the steps on the loss, included in
      the seconds of the measurement.
    - ``elasticity/{p}/...``: ``epochs_completed``, ``seconds``, ``figure_seconds``,
      ``num_classes``, ``num_samples``, ``failures`` of each measurement.

    ``intra`` and ``inter`` are mean changes of a logit when a step raises the same logit of another
    sample, per unit of learning rate and of the loss gradient at that logit. Classes separate where
    ``intra`` is larger.

    A measurement costs one backward pass per output over ``samples_per_class * max_classes``
    samples, divided among the processes; gradients with respect to the weights are not stored. If
    it takes more than 5 s, the callback says so once in Lightning's log before the first output,
    with what would be cheaper. The network runs in evaluation mode, without autocast, in the
    precision of its parameters (float32 if that is half precision).

    Args:
        samples_per_class: Number of samples per class; the first ones of the probe are used.
        max_classes: Maximum number of classes; if there are more, the probe's seed selects which.
        outputs: ``"all"``; or a number of random directions, the same for all samples, which
            estimate the sum over all outputs; or a function that maps the network's output to one
            number per sample.
        relative_similarity: Whether to log S_rel of small steps on the loss, which about doubles
            the cost.
        parameters: Names or globs of the parameters that a step changes, such as ``"head.**"``; in
            a glob, ``*`` stops at a dot and ``**`` does not. By default all that are trained.
            ``"last_layer"`` means those of the head alone, and the head's own outputs, whatever the
            network computes from them; this needs only one forward pass.
        loss: The loss of these steps, ``loss(outputs, labels)``; by default the cross-entropy of
            logits.
        head: Name of the module that computes the logits, for ``parameters="last_layer"``.
        probe: ``"train"``, ``"val"`` or ``"test"`` for the Trainer's data, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last one.
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: Whether to measure at the end of training epochs, ``"train_epoch_end"``, or of
            validation, ``"validation_end"``.
        figures: Which figures to log: by default those of the 1st, 2nd, 4th, 8th, ... measurement
            and of the last; ``"all"``, ``"last"`` or False.
        on_error: ``"warn"`` skips a measurement that fails and continues training; ``"raise"``
            stops the run.

    Raises:
        ValueError: If an argument is out of range, or arguments contradict each other.

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
        figures: Figures = True,
        on_error: OnError = "warn",
    ) -> None:
        measure = ElasticityMeasure(
            samples_per_class, max_classes, outputs, relative_similarity, parameters, loss, head
        )
        super().__init__(measure, probe, every_n_epochs, epochs, when, figures, on_error)
        require_own_outputs(self.probe)
        self.parameters = parameters

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Set up as `MeasureCallback` does, and refuse strategies that shard the parameters."""
        super().setup(trainer, pl_module, stage)
        if self.parameters == "last_layer":
            return
        try:
            require_whole_parameters(trainer, type(self).__name__)
        except DoesNotApply as reason:
            if self.record.asked_for:
                raise
            self.record.left_out = True
            say_inapplicable(trainer, self.record, reason)
