"""Local elasticity: whether a gradient step on one sample moves its own class more than others."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_nc.arguments import (
    require_function,
    require_module_name,
    require_names,
    require_whole_number,
    require_yes_or_no,
)
from lightning_nc.figures import over_epochs_figure, similarity_figure
from lightning_nc.figures.canvas import Target
from lightning_nc.functional.gradient_kernel import Outputs, require_outputs, slow_layers
from lightning_nc.functional.loss_gradients import Loss
from lightning_nc.measures.local_elasticity_quantities import QUANTITIES
from lightning_nc.measures.measure import Drawing, Evaluation, Measure
from lightning_nc.measures.notes import undefined_notes
from lightning_nc.measures.timeline import Timeline
from lightning_nc.passes.gradient_pass import GradientPass
from lightning_nc.passes.request import Answer, KernelAnswer, KernelRequest, Parameters, Request
from lightning_nc.wording import listed

_MANY = 100  # backward passes above which a note is given


class ElasticityMeasure(Measure):
    """Relative ratio and effects of gradient steps, from the tangent kernel of a few samples.

    Args:
        samples_per_class: See the callback `LocalElasticity`, also for the other arguments.
        max_classes: Largest number of classes.
        outputs: Outputs of the network whose gradients are taken.
        relative_similarity: Whether to measure steps on the loss as well.
        parameters: The parameters that the steps change.
        loss: The loss of these steps.
        head: Name of the head.

    Raises:
        ValueError: If arguments are out of range or contradict each other.
    """

    family = "elasticity"
    title = "Local elasticity"
    question = "Does a gradient step on one sample move its own class more than others?"
    figures = ("kernel", "ratio")
    passes = GradientPass
    quantities = QUANTITIES

    def __init__(
        self,
        samples_per_class: int = 5,
        max_classes: int = 10,
        outputs: Outputs = "all",
        relative_similarity: bool = False,
        parameters: Parameters = None,
        loss: Loss | None = None,
        head: str | None = None,
    ) -> None:
        outputs = require_outputs(outputs)
        pairs = " (to form pairs)"
        samples_per_class = require_whole_number("samples_per_class", samples_per_class, 2, pairs)
        max_classes = require_whole_number("max_classes", max_classes, 2, pairs)
        relative_similarity = require_yes_or_no("relative_similarity", relative_similarity)
        require_function("loss", loss, ": loss(outputs, labels)")
        require_module_name("head", head)
        if parameters is not None and parameters != "last_layer":
            hint = 'Give a list such as ["encoder.*"], or "last_layer".'
            parameters = require_names("parameters", parameters, hint)
        if parameters == "last_layer" and outputs != "all":
            raise ValueError(
                'parameters="last_layer" has a closed form only for all outputs: omit outputs=.'
            )
        if relative_similarity and callable(outputs):
            raise ValueError(
                "relative_similarity needs all outputs or a number of directions, not a function. "
                "Leave out relative_similarity or outputs=."
            )
        self.kernel = KernelRequest(
            samples_per_class, max_classes, outputs, parameters, relative_similarity, loss
        )
        self.head = head

    def request(self) -> Request:
        """Request a comparison of the gradients of a few samples."""
        of_last_layer = self.kernel.parameters == "last_layer"
        return Request(
            classifier=of_last_layer, head=self.head, needs_head=True, kernel=self.kernel
        )

    def evaluate(self, answer: Answer) -> Evaluation:
        """Compute ratios and effects."""
        assert answer.kernel is not None
        found = answer.kernel._replace(
            kernel=answer.kernel.kernel.cpu(),
            moves=None if answer.kernel.moves is None else answer.kernel.moves.cpu(),
        )
        values = self.values_of(found)
        classes = torch.searchsorted(answer.labels, found.labels)
        arrays: dict[str, Tensor] = {"kernel": found.kernel, "labels": classes}
        return Evaluation(values, arrays=arrays, notes=self._notes(found, values))

    def draw(self, timeline: Timeline) -> dict[str, Drawing]:
        """Figures of the kernel, class by class, and of the ratio over epochs."""
        return {"kernel": partial(_draw_kernel, timeline), "ratio": partial(_draw_ratio, timeline)}

    def _notes(self, found: KernelAnswer, values: Mapping[str, float]) -> dict[str, str]:
        notes = undefined_notes(values, [(_why(found), lambda name: True)])
        if found.one_by_one:
            notes["slow"] = (
                f"{slow_layers(found.one_by_one)}; leave them out with parameters=[...], or give "
                'parameters="last_layer", which takes one forward pass.'
            )
        elif found.by_network:
            notes["slow"] = (
                f"{listed(map(repr, found.by_network))} are used outside the layer that holds "
                "them, so the whole network is differentiated for each sample, which is slower; "
                "leave them out with parameters=[...]."
            )
        if self.kernel.outputs == "all" and found.num_outputs > _MANY:
            notes["many"] = (
                f"{found.num_outputs} outputs take as many backward passes per measurement; "
                "outputs=20 estimates the same from 20 random directions."
            )
        return notes


def _why(found: KernelAnswer) -> str:
    """Why a ratio or an effect is NaN."""
    counts = found.labels.bincount()
    if int(counts.max()) < 2:
        return "no class has two samples in the probe"
    if not bool((found.kernel.diagonal() > 0).all()):
        return "the outputs of some samples do not depend on the parameters"
    if found.moves is not None and not bool((found.moves.diagonal() > 0).all()):
        return "steps on the loss of some samples do not move them, since their loss is zero"
    if not bool(torch.isfinite(found.kernel).all()):
        return "gradients are not finite"
    return (
        "the mean kernel between classes is not positive: steps on one class push the others in "
        "the opposite direction"
    )


def _draw_kernel(timeline: Timeline, on: Target = None) -> Any:
    last, title = timeline.last, timeline.title_of_last("Tangent kernel")
    kernel, labels = last.arrays["kernel"], last.arrays["labels"]
    return similarity_figure(kernel, labels, last.class_names, title, on)


def _draw_ratio(timeline: Timeline, on: Target = None) -> Any:
    time = timeline.time
    return over_epochs_figure(
        time.places[0],
        {
            "pairs of different samples": timeline.over_epochs("relative_ratio"),
            "with self pairs": timeline.over_epochs("relative_ratio_self_pairs"),
        },
        {"no local elasticity": 0.5},
        "relative ratio",
        timeline.title("Local elasticity over epochs"),
        on,
        time=time.label,
    )
