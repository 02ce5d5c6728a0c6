"""Inner products of gradients on m samples, direction by direction, and the proof of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.tangent.differentiable_network import INNER, Network
from lightning_nc.tangent.inner_products import exact
from lightning_nc.tangent.parameter_owners import find_owners
from lightning_nc.tangent.recomputed_modules import Recomputed
from lightning_nc.tangent.recorded_pass import RecordedPass
from lightning_nc.tangent.used_parameters import leaves_of, require_aliases


class TangentKernel(NamedTuple):
    """The tangent kernel on m samples.

    Attributes:
        kernel: sum_r < d (v_r.f)(x_i), d (v_r.f)(x_j) >, shape ``(m, m)``.
        one_by_one: Modules whose gradients took a backward pass per sample, and why.
        by_network: Parameters for which the network as a whole was run for each sample, since they
            are used outside of a layer that holds them.
    """

    kernel: Tensor
    one_by_one: Mapping[str, str]
    by_network: Sequence[str]


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
    network: Network,
    directions: Tensor,
    own: Sequence[int] | None = None,
    advance: Callable[[], None] | None = None,
) -> TangentKernel:
    """Compare the gradients of all samples, in each of some output directions.

    Args:
        network: On m samples.
        directions: v_r, shape ``(R, C)``.
        own: Those of them that are to be summed over; by default all.
        advance: Called after each of these.

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
            if advance is not None:
                advance()
    return TangentKernel((kernel + kernel.mT) / 2, seen.one_by_one(), seen.by_network())


def output_changes(
    network: Network,
    directions: Tensor,
    losses: Callable[[Tensor], Tensor],
    own: Sequence[int] | None = None,
    advance: Callable[[], None] | None = None,
) -> OutputChanges:
    """Compare the gradients of outputs with those of losses, for each pair of samples.

    Args:
        network: On m samples.
        directions: v_r, shape ``(R, C)``.
        losses: Gradients of losses by the outputs, given these; shape ``(m, C)``.
        own: Those directions that are to be taken, zeros for others; by default all.
        advance: Called after each of these.

    Raises:
        ValueError: If the gradients of single samples do not add up to that of the batch.
    """
    chosen = range(len(directions)) if own is None else own
    with network.undisturbed():
        seen, v = _proven(network, directions, chosen)
        of_losses = losses(seen.f)
        changes = exact(torch.zeros(len(v), network.m, network.m, device=v.device))
        # of unit length, since near zero loss they would be lost in the network's precision
        lengths = of_losses.norm(dim=1)
        unit = of_losses / torch.where(lengths > 0, lengths, 1)[:, None]
        by_loss = seen.gradients(unit.to(seen.f))
        for r in chosen:
            changes[r] = seen.gram(seen.gradients(v[r]), by_loss) * lengths
            if advance is not None:
                advance()
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
        owners = find_owners(network.whole, network.selected, *network.looks, whole)
        self.recorded = RecordedPass(owners)
        self.f = self.recorded.forward(network.run)
        # heads that are not in use, say, have no gradient, for which the network need not run
        leaves = leaves_of(self.f)
        require_aliases(network, leaves)
        used = {name for name in network.selected if id(network.aliases[name]) in leaves}
        if not used:
            raise ValueError("The outputs depend on none of the parameters that are to count.")
        self.recorded.keep(used)
        self.grams = {
            path: self.recorded.gram_of(path, network.aliases, network.m, directions)
            for path in self.recorded.owners
        }

    def gradients(self, direction: Tensor) -> dict[str, list[Tensor]]:
        """Gradients of each owner's outputs, in a direction of the network's outputs."""
        return self.recorded.gradients(self.f, direction.expand_as(self.f))

    def gram(self, left: Mapping[str, list[Tensor]], right: Mapping[str, list[Tensor]]) -> Tensor:
        """Inner products of the gradients of all samples by all parameters, shape ``(m, m)``."""
        with torch.no_grad():
            products = [each.gram(left[path], right[path]) for path, each in self.grams.items()]
        return torch.stack(products).sum(0)

    def broken(self, v: Tensor) -> list[str]:
        r"""Parameters whose gradients of samples do not add up to the gradient of their sum.

        With any weights s, :math:`s^T K s = \lVert \sum_i s_i \partial f(x_i) \rVert^2`, which an
        ordinary backward pass tells. It does not hold if a parameter is used elsewhere than by the
        module that answers for it, or samples act on each other. Ones show what signs do not where
        gradients are alike and cancel, signs what ones do not: samples in another order.
        """
        random = torch.Generator().manual_seed(0)
        signs = 2.0 * torch.randint(2, (self.network.m,), generator=random) - 1
        weights = [s.to(self.f) for s in (signs, torch.ones_like(signs))]
        squares = [self._squares(s[:, None] * v) for s in weights]
        g = self.gradients(v)
        kernels = {path: self._kernel_of(path, g[path]) for path in self.grams}
        scale = sum(float(K.abs().sum()) for K in kernels.values() if K is not None)
        broken = []
        for path, owner in self.recorded.owners.items():
            K = kernels[path]
            pairs = [
                (s, torch.stack([of_sum[name] for name in owner.parameters]).sum())
                for s, of_sum in zip(weights, squares, strict=True)
            ]
            if K is None or not all(self._adds_up(K, s.to(K), n, scale) for s, n in pairs):
                broken += list(owner.parameters)
        return broken

    def _squares(self, direction: Tensor) -> dict[str, Tensor]:
        """Squared norms of the gradients by each parameter, by an ordinary backward pass."""
        names = [name for owner in self.recorded.owners.values() for name in owner.parameters]
        leaves = [self.network.aliases[name] for name in names]
        found = torch.autograd.grad(
            self.f, leaves, direction, retain_graph=True, materialize_grads=True
        )
        return {name: exact(g).square().sum() for name, g in zip(names, found, strict=True)}

    def _kernel_of(self, path: str, g: list[Tensor]) -> Tensor | None:
        """What an owner adds in a direction; None if its gradients cannot be told apart."""
        if not all(run.unchanged() for run in self.recorded.runs[path]):
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
            _name(path): each.one_by_one
            for path, each in self.grams.items()
            if isinstance(each, Recomputed) and each.one_by_one is not None
        }

    def by_network(self) -> list[str]:
        """Parameters for which the network as a whole is run for each sample."""
        return [
            name.removeprefix(INNER)
            for path, each in self.grams.items()
            if isinstance(each, Recomputed) and _name(path) == "the network"
            for name in self.recorded.owners[path].parameters
        ]


def _name(path: str) -> str:
    return path.removeprefix(INNER).removeprefix("network") or "the network"
