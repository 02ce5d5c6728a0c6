"""Compare many tensors with their copies, waiting for each device only once."""

from collections.abc import Iterable

import torch
from torch import Tensor


def which_differ(pairs: Iterable[tuple[Tensor, Tensor]]) -> list[bool]:
    """Whether the tensors of each pair differ in shape or in any value; NaN differs from itself.

    Args:
        pairs: Pairs of tensors on the same device.

    Example:
        >>> which_differ([(torch.zeros(2), torch.zeros(2)), (torch.zeros(2), torch.ones(2))])
        [False, True]
    """
    found: list[bool] = []
    waiting: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for position, (a, b) in enumerate(pairs):
        found.append(a.shape != b.shape)
        if not found[-1]:
            waiting.setdefault(a.device, []).append((position, (a != b).any()))
    for asked in waiting.values():
        positions, answers = zip(*asked, strict=True)
        for position, differs in zip(positions, torch.stack(answers).tolist(), strict=True):
            found[position] = differs
    return found
