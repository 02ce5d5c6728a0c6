"""Compare many tensors with their copies, bit by bit, waiting for each device only once."""

from collections.abc import Iterable

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def which_differ(pairs: Iterable[tuple[Tensor, Tensor]]) -> list[bool]:
    """Whether the tensors of each pair differ in shape or in any bit.

    Sparse tensors differ if their indices or values do, in number or in order.

    Args:
        pairs: Pairs of tensors of the same kind on the same device.

    Example:
        >>> which_differ([(torch.zeros(2), torch.zeros(2)), (torch.zeros(2), -torch.zeros(2))])
        [False, True]
        >>> which_differ([(torch.eye(2).to_sparse(), torch.eye(2).to_sparse())])
        [False]
    """
    found: list[bool] = []
    waiting: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for position, (a, b) in enumerate(pairs):
        parts = list(zip(dense_parts(a), dense_parts(b), strict=True))
        found.append(a.shape != b.shape or any(x.shape != y.shape for x, y in parts))
        if not found[-1]:
            asked = waiting.setdefault(a.device, [])
            asked += [(position, (as_integers(x) != as_integers(y)).any()) for x, y in parts]
    for asked in waiting.values():
        positions, answers = zip(*asked, strict=True)
        for position, differs in zip(positions, torch.stack(answers).tolist(), strict=True):
            found[position] |= differs
    return found


def as_integers(x: Tensor) -> Tensor:
    """The bits of a dense tensor as integers, two of them for a complex number."""
    if x.is_quantized:
        return x.int_repr()
    plain = torch.view_as_real(x) if x.is_complex() else x
    return plain.view(_INTEGERS[plain.element_size()])


def dense_parts(x: Tensor) -> list[Tensor]:
    """The dense tensors that a tensor consists of: itself, or indices and values, or shards."""
    if hasattr(x, "__tensor_flatten__"):  # made of others, such as one that is distributed
        held = [getattr(x, name) for name in x.__tensor_flatten__()[0]]
        return [part for each in held if isinstance(each, Tensor) for part in dense_parts(each)]
    x = x.detach()
    if x.layout == torch.sparse_coo:  # these also without coalescing
        return [x._indices(), x._values()]
    if x.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [x.crow_indices(), x.col_indices(), x.values()]
    if x.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [x.ccol_indices(), x.row_indices(), x.values()]
    return [x]
