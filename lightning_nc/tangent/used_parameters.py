"""On which leaves outputs depend, and whether they are those of our own."""

from typing import Any

from torch import Tensor

from lightning_nc.tangent.differentiable_network import INNER, Network


def leaves_of(output: Tensor) -> set[int]:
    """Identities of the leaves on which an output depends."""
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
    """Raise if outputs depend on parameters themselves, in the place of which we have none."""
    own = dict(network.whole.named_parameters())
    kept = [name.removeprefix(INNER) for name in network.selected if id(own[name]) in leaves]
    if kept:
        raise ValueError(
            f"The network uses {', '.join(map(repr, kept[:3]))} by a reference other than the "
            "module that holds it, such as a list or a function's closure, so that its gradients "
            "cannot be told apart: use the module's attribute in forward, or leave such "
            "parameters out by parameters=[...]."
        )
