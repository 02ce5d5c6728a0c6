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
    if last is not None and last.rows is not None and last.rows > 1:
        notes |= _beyond_note(last.name, last.rows, classes)
    return notes


def _beyond_note(layer: str, rows: int, classes: Tensor) -> dict[str, str]:
    """Say that one label has no row in the last layer; of more labels the layer is no head."""
    beyond = classes[classes >= rows].tolist()
    if len(beyond) != 1 or len(classes) == 1:
        return {}
    return {
        "ignored": f"label {beyond[0]} has no row among the {rows} of the last layer, '{layer}', "
        "and is measured as a class. If it marks positions without a class, set "
        f"Probe(..., ignore_index={beyond[0]})."
    }


def _are_tokens(given: Tensor, targets: Tensor, ignored: int) -> bool:
    if given.shape != targets.shape or given.is_floating_point():
        return False
    kept = targets != ignored
    return bool(kept.any()) and torch.equal(given.cpu()[kept].long(), targets[kept].long())
