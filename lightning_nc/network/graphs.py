"""Batches of graphs: the graph of each node and edge, and the mean over those of each graph."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_nc.guards.precision import with_float64
from lightning_nc.network.parameters import by_name

Kind = Literal["nodes", "edges"]


def graphs_of(inputs: Any) -> dict[Kind, Tensor]:
    """The graph of each of the "nodes" and "edges", if the inputs are a batch of graphs.

    They have an attribute, a key or an argument ``batch``, the graph of each node, shape ``(n,)``,
    and perhaps ``edge_index``, the nodes of each edge, shape ``(2, e)``, as in torch_geometric.

    Example:
        >>> batch, edges = torch.tensor([0, 0, 1]), torch.tensor([[0, 1], [1, 0]])
        >>> graphs_of({"batch": batch, "edge_index": edges})
        {'nodes': tensor([0, 0, 1]), 'edges': tensor([0, 0])}
    """
    named = by_name(inputs)
    for held in (named, inputs, *named.values()):
        batch, edges = _whole_numbers(held, "batch"), _whole_numbers(held, "edge_index")
        if batch is None or batch.ndim != 1:
            continue
        if edges is None or edges.ndim != 2 or len(edges) != 2:
            return {"nodes": batch}
        return {"nodes": batch, "edges": batch[edges[0]]}
    return {}


def rows_of_graphs(shape: tuple[int, ...], samples: int, inputs: Any) -> Kind | None:
    """What the rows of a layer are, by their number; None if they are samples, or it is unclear."""
    if len(shape) != 2 or shape[0] == samples:
        return None
    fits = [kind for kind, of in graphs_of(inputs).items() if len(of) == shape[0]]
    return fits[0] if len(fits) == 1 else None


def _whole_numbers(held: Any, name: str) -> Tensor | None:
    found = held.get(name) if isinstance(held, Mapping) else getattr(held, name, None)
    whole = isinstance(found, Tensor) and found.dtype in (torch.int32, torch.int64)
    return found if whole else None


def mean_of_graphs(h: Tensor, graphs: Tensor, num_graphs: int = 1) -> Tensor:
    """The mean over the nodes or edges of each graph, shape ``(N, d)``.

    Sums are in float64, so that their order, which varies on GPUs, costs no digits.

    Args:
        h: Features of nodes or edges, shape ``(n, d)``.
        graphs: The graph of each, shape ``(n,)``.
        num_graphs: Number of graphs N, of which the last may have no edges.

    Raises:
        ValueError: If a graph has none.

    Example:
        >>> mean_of_graphs(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]))
        tensor([[2.],
                [5.]], dtype=torch.float64)
    """
    graphs, n = graphs.to(h.device), graphs.bincount(minlength=num_graphs)
    if not bool(n.all()):
        alone = int((n == 0).nonzero()[0])
        raise ValueError(
            f"Graph {alone} of a batch has no edges, such as a molecule of one "
            "atom, and so no mean over them. Name layers of nodes, layers=[...], or make features "
            "otherwise, as by a sum: pool=lambda output, inputs: ..."
        )
    has_float64 = with_float64(h.device) == h.device
    h = h.double() if has_float64 else h.float()
    return h.new_zeros(len(n), h.shape[1]).index_add(0, graphs, h) / n.to(h.device)[:, None]
