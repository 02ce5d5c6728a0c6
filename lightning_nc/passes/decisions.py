"""What the classifier decides for each sample: by W h + b, and by what the network outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nc.functional.classifier import classifier_logits, two_row_head
from lightning_nc.network.head import Head, far_from
from lightning_nc.network.points import Point
from lightning_nc.network.pooling import main_tensor


def classifier_of(head: Head, point: Point, width: int) -> tuple[Tensor, Tensor | None]:
    """The weight and bias of the classifier, if they fit its input as it was pooled or flattened.

    Args:
        head: The head as it was when it ran.
        point: The point at its input.
        width: Feature dimension d of that point.

    Returns:
        Weight, shape ``(R, d)``, and bias, shape ``(R,)``; a one-logit head is read as two rows.

    Raises:
        ValueError: If the head has weights for another number of features.
    """
    if head.weight.shape[1] != width:
        over_positions = (
            ", such as the mean over positions: pool=lightning_nc.masked_mean for sequences, "
            "pool=lightning_nc.spatial_mean for images"
        )
        raise ValueError(
            f"The head '{point.module}' has weights for {head.weight.shape[1]} features, but its "
            f"input has {width} per sample. Give a pool= that returns the features that a weight "
            f"row multiplies{'' if width % head.weight.shape[1] else over_positions}."
        )
    return two_row_head(head.weight, head.bias) if len(head.weight) == 1 else head[:2]


def logits_of(features: Tensor, head: Head, point: Point) -> Tensor:
    """W h + b in float64 from the features at the head's input, shape ``(n, R)``."""
    return classifier_logits(features, *classifier_of(head, point, features.shape[1]))


def decisions(logits: Tensor, outputs: Sequence[Any]) -> Tensor:
    """What W h + b decides, and what the network's output decides.

    Args:
        logits: W h + b in float64, shape ``(n, R)``.
        outputs: What the network returned, and what the head returned. The first with a column per
            row of the head, or with a single column for two rows, decides.

    Returns:
        The row chosen by W h + b, the row chosen by the output, and whether the output is something
        other than W h + b, of each sample, int64, shape ``(3, n)``.
    """
    chosen = logits.argmax(1)
    shaped = (_columns(main_tensor(output), logits) for output in outputs)
    output = next((z for z in shaped if z is not None), None)
    if output is None:
        return torch.stack([chosen, chosen, torch.zeros_like(chosen)])
    if output.shape[1] > 1:
        by_output, off = output.argmax(1), far_from(logits, output)
    else:
        z = output[:, 0]
        # the output may be the logit or its probability
        is_probability = (z >= 0).all() & (z <= 1).all()
        by_output = (z > torch.where(is_probability, 0.5, 0.0)).long()
        off = far_from(logits.diff(dim=1), output)
    return torch.stack([chosen, by_output, off.long()])


def _columns(output: Any, logits: Tensor) -> Tensor | None:
    """An output as one or R columns in float64, shape ``(n, 1)`` or ``(n, R)``; None if neither."""
    if not isinstance(output, Tensor) or len(output.shape) == 0 or len(output) != len(logits):
        return None
    if output.ndim > 2 or (output.ndim == 2 and output.shape[1] not in (1, logits.shape[1])):
        return None
    columns = output.detach().reshape(len(output), -1).to(logits)
    return columns if columns.shape[1] > 1 or logits.shape[1] == 2 else None
