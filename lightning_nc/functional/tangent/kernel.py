"""Inner products of gradients on m samples, direction by direction, and the proof of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.functional.tangent.grams import exact
from lightning_nc.functional.tangent.network import INNER, Network
from lightning_nc.functional.tangent.recomputed import Recomputed
from lightning_nc.functional.tangent.units import settle_units
from lightning_nc.functional.tangent.watched import Watched


class TangentKernel(NamedTuple):
    """The tangent kernel on m samples.

    Attributes:
        kernel: sum_r < d (v_r.f)(x_i), d (v_r.f)(x_j) >, shape ``(m, m)``.
        one_by_one: Modules whose gradients took a backward pass per sample, and why.
    """

    kernel: Tensor
    one_by_one: Mapping[str, str]


class OutputChanges(NamedTuple):
    """What steps on the losses of m samples do to outputs.

    Attributes:
        changes: < d (v_r.f)(x_j), d L(x_i) > by r, j, i, shape ``(R, m, m)``: minus the change of
            outputs at x_j by a step on x_i, per unit of its rate.
        losses: Gradients of the losses by the outputs, shape ``(m, C)``.
        one_by_one: As of `TangentKernel`.
    """

    changes: Tensor
    losses: Tensor
    one_by_one: Mapping[str, str]


def tangent_kernel(
    network: Network, directions: Tensor, own: Sequence[int] | None = None
) -> TangentKernel:
    """Compare the gradients of all samples, in each of some output directions.

    Args:
        network: On m samples.
        directions: v_r, shape ``(R, C)``.
        own: Those of them that are to be summed over; by default all.

    Raises:
        ValueError: If the gradients of single samples do not add up to that of the batch.
    """
    chosen = range(len(directions)) if own is None else own
    with network.undisturbed():
        seen, v = _proven(network, directions, chosen)
        kernel = exact(torch.zeros(network.m, network.m, device=v.device))
        for r in chosen:
            g = seen.gradients(v[r])
            kernel += seen.gram(g, g)
    return TangentKernel((kernel + kernel.mT) / 2, seen.one_by_one())


def output_changes(
    network: Network,
    directions: Tensor,
    losses: Callable[[Tensor], Tensor],
    own: Sequence[int] | None = None,
) -> OutputChanges:
    """Compare the gradients of outputs with those of losses, for each pair of samples.

    Args:
        network: On m samples.
        directions: v_r, shape ``(R, C)``.
        losses: Gradients of losses by the outputs, given these; shape ``(m, C)``.
        own: Those directions that are to be taken, zeros for others; by default all.

    Raises:
        ValueError: If the gradients of single samples do not add up to that of the batch.
    """
    chosen = range(len(directions)) if own is None else own
    with network.undisturbed():
        seen, v = _proven(network, directions, chosen)
        of_losses = losses(seen.f)
        changes = exact(torch.zeros(len(v), network.m, network.m, device=v.device))
        by_loss = seen.gradients(of_losses)
        for r in chosen:
            changes[r] = seen.gram(seen.gradients(v[r]), by_loss)
    return OutputChanges(changes, of_losses, seen.one_by_one())


def _proven(network: Network, directions: Tensor, chosen: Sequence[int]) -> tuple["_Pass", Tensor]:
    """A forward pass whose inner products are right, and the directions as it takes them."""
    seen = _Pass(network, max(len(chosen), 1))
    v = directions.to(seen.f)
    # what is wrong in any direction is wrong in one drawn at random
    weights = torch.randn(len(v), generator=torch.Generator().manual_seed(0))
    mixed = weights.to(v) @ v
    if broken := seen.broken(mixed):
        # for these the network as a whole is differentiated
        seen = _Pass(network, max(len(chosen), 1), broken)
        if broken := seen.broken(mixed):
            names = ", ".join(name.removeprefix(INNER) for name in broken[:3])
            raise ValueError(
                f"Gradients of single samples by {names} do not add up to that of the batch: the "
                "network is random, or treats samples of a batch together. Call model.eval(), or "
                "leave such parameters out by parameters=[...]."
            )
    return seen, v


class _Pass:
    """A forward pass under hooks; for the parameters in ``whole`` the network itself answers."""

    def __init__(self, network: Network, directions: int, whole: Sequence[str] = ()) -> None:
        self.network = network
        units = settle_units(network.whole, network.selected, *network.looks, whole)
        self.watched = Watched(units)
        self.f = self.watched.forward(network.run)
        # heads that are not in use, say, have no gradient, for which the network need not run
        leaves = _leaves(self.f)
        used = {name for name in network.selected if id(network.aliases[name]) in leaves}
        if not used:
            raise ValueError("The outputs depend on none of the parameters that are to count.")
        self.watched.keep(used)
        self.grams = {
            path: self.watched.gram_of(path, network.aliases, network.m, directions)
            for path in self.watched.units
        }

    def gradients(self, direction: Tensor) -> dict[str, list[Tensor]]:
        """Gradients of each unit's outputs, in a direction of the network's outputs."""
        return self.watched.gradients(self.f, direction.expand_as(self.f))

    def gram(self, left: Mapping[str, list[Tensor]], right: Mapping[str, list[Tensor]]) -> Tensor:
        """Inner products of the gradients of all samples by all parameters, shape ``(m, m)``."""
        with torch.no_grad():
            products = [each.gram(left[path], right[path]) for path, each in self.grams.items()]
        return torch.stack(products).sum(0)

    def broken(self, v: Tensor) -> list[str]:
        r"""Parameters whose gradients of samples do not add up to the gradient of their sum.

        With any signs s, :math:`s^T K s = \lVert \sum_i s_i \partial f(x_i) \rVert^2`, which an
        ordinary backward pass tells. It does not hold if a parameter is used elsewhere than by the
        module that answers for it, or samples act on each other.
        """
        f, aliases = self.f, self.network.aliases
        random = torch.Generator().manual_seed(0)
        s = (2.0 * torch.randint(2, (self.network.m,), generator=random) - 1).to(f)
        names = [name for unit in self.watched.units.values() for name in unit.parameters]
        leaves = [aliases[name] for name in names]
        of_sum = torch.autograd.grad(
            f, leaves, s[:, None] * v, retain_graph=True, materialize_grads=True
        )
        squares = {name: exact(g).square().sum() for name, g in zip(names, of_sum, strict=True)}
        g = self.gradients(v)
        kernels = {path: self._kernel_of(path, g[path]) for path in self.grams}
        scale = sum(float(K.abs().sum()) for K in kernels.values() if K is not None)
        broken = []
        for path, unit in self.watched.units.items():
            K = kernels[path]
            expected = torch.stack([squares[name] for name in unit.parameters]).sum()
            if K is None or not self._adds_up(K, s.to(K), expected, scale):
                broken += list(unit.parameters)
        return broken

    def _kernel_of(self, path: str, g: list[Tensor]) -> Tensor | None:
        """What a unit adds in a direction; None if its gradients cannot be told apart after all."""
        if not all(run.unchanged() for run in self.watched.runs[path]):
            return None
        try:
            with torch.no_grad():
                return self.grams[path].gram(g, g)
        except (RuntimeError, ValueError, IndexError):  # shapes are not what they seemed
            return None

    def _adds_up(self, K: Tensor, s: Tensor, expected: Tensor, scale: float) -> bool:
        # rounding takes half of the digits at most, or all of those that are rounding errors
        eps = self.network.eps
        tolerance = eps**0.5 * K.abs().sum() + eps**1.5 * scale
        return bool((s @ K @ s - expected).abs() <= tolerance)

    def one_by_one(self) -> dict[str, str]:
        """Modules whose gradients take a backward pass per sample, and why."""
        return {
            path.removeprefix(INNER).removeprefix("network") or "the network": each.one_by_one
            for path, each in self.grams.items()
            if isinstance(each, Recomputed) and each.one_by_one is not None
        }


def _leaves(output: Tensor) -> set[int]:
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
