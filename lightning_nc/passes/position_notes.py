"""What is said of labels of positions that are hardly the classes that are meant."""

from typing import Any

import torch
from torch import Tensor

from lightning_nc.network.nesting import tensors_in
from lightning_nc.network.trace import Trace


def position_notes(
    inputs: Any, targets: Tensor, ignored: int, classes: Tensor, found: Trace
) -> dict[str, str]:
    """Say that labels are the tokens themselves, or that one marks positions without a class.

    Args:
        inputs: What the network is called with.
        targets: Labels of all positions of that batch, shape ``(B, T)`` or ``(B, H, W)``.
        ignored: The label of positions that are none.
        classes: The labels that are measured as classes, shape ``(K,)``.
        found: A traced forward pass.
    """
    notes = {}
    if any(_are_tokens(given, targets, ignored) for given in tensors_in(inputs)):
        notes["tokens"] = (
            "the label of each position is the token there, so classes are the tokens themselves. "
            "In a causal language model the class of a position is the next token: "
            "Probe(..., unpack=next_token)."
        )
    last = found.last_weighted()
    rows = (last.rows or 0) if last is not None else 0
    if last is not None and rows > 1:
        beyond = classes[classes >= rows].tolist()
        if len(beyond) == 1 < len(classes):  # where there are several, the layer is no head of them
            notes["ignored"] = (
                f"label {beyond[0]} is none of the {rows} rows of the last layer, "
                f"'{last.name}', and is measured as a class. If it marks positions without a "
                f"class: Probe(..., ignore_index={beyond[0]})."
            )
    return notes


def _are_tokens(given: Tensor, targets: Tensor, ignored: int) -> bool:
    if given.shape != targets.shape or given.is_floating_point():
        return False
    kept = targets != ignored
    return bool(kept.any()) and torch.equal(given.cpu()[kept].long(), targets[kept].long())
