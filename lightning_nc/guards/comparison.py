"""Compare many tensors with their copies, waiting for each device only once."""

from collections.abc import Iterable

import torch
from torch import Tensor


def which_differ(pairs: Iterable[tuple[Tensor, Tensor]]) -> list[bool]:
    """Whether the tensors of each pair differ in shape or in any value; NaN differs from itself.

    Sparse tensors differ if their indices or values do, in number or in order.

    Args:
        pairs: Pairs of tensors of the same layout on the same device.

    Example:
        >>> which_differ([(torch.zeros(2), torch.zeros(2)), (torch.zeros(2), torch.ones(2))])
        [False, True]
        >>> which_differ([(torch.eye(2).to_sparse(), torch.eye(2).to_sparse())])
        [False]
    """
    found: list[bool] = []
    waiting: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for position, (a, b) in enumerate(pairs):
        parts = list(zip(_dense_parts(a), _dense_parts(b), strict=True))
        found.append(a.shape != b.shape or any(x.shape != y.shape for x, y in parts))
        if not found[-1]:
            asked = waiting.setdefault(a.device, [])
            asked += [(position, (x != y).any()) for x, y in parts]
    for asked in waiting.values():
        positions, answers = zip(*asked, strict=True)
        for position, differs in zip(positions, torch.stack(answers).tolist(), strict=True):
            found[position] |= differs
    return found


def _dense_parts(x: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that a tensor consists of: itself, or indices and values."""
    if x.layout == torch.sparse_coo:  # these also without coalescing
        return x._indices(), x._values()
    if x.layout in (torch.sparse_csr, torch.sparse_bsr):
        return x.crow_indices(), x.col_indices(), x.values()
    if x.layout in (torch.sparse_csc, torch.sparse_bsc):
        return x.ccol_indices(), x.row_indices(), x.values()
    return (x,)
