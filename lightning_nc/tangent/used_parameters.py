"""The leaves that outputs depend on, and a check that they are the aliases."""

from typing import Any

from torch import Tensor

from lightning_nc.tangent.differentiable_network import INNER, Network
from lightning_nc.wording import listed


def leaves_of(output: Tensor) -> set[int]:
    """Return the ids of the leaves that an output depends on."""
    waiting, seen, leaves = [output.grad_fn], set[Any](), set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        waiting += [parent for parent, _ in node.next_functions]
    return leaves


def require_aliases(network: Network, leaves: set[int]) -> None:
    """Raise if outputs depend on parameters themselves instead of their aliases.

    Args:
        network: The network.
        leaves: Ids of the leaves that its outputs depend on.

    Raises:
        ValueError: If a selected parameter is among the leaves.
    """
    own = dict(network.whole.named_parameters())
    kept = [name.removeprefix(INNER) for name in network.selected if id(own[name]) in leaves]
    if kept:
        raise ValueError(
            f"The network uses {listed(map(repr, kept), 3)} through a reference other than the "
            "module that holds it, such as a list or a function's closure, so the samples' "
            "gradients cannot be separated. Use the module's attribute in forward(), or leave out "
            "such parameters with parameters=[...]."
        )
