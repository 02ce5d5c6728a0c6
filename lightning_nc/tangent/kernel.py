"""Inner products of gradients on m samples by output direction."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nc.tangent.checked_pass import checked_pass
from lightning_nc.tangent.differentiable_network import Network
from lightning_nc.tangent.inner_products import exact


class TangentKernel(NamedTuple):
    """The tangent kernel on m samples.

    Attributes:
        kernel: sum_r < d (v_r.f)(x_i), d (v_r.f)(x_j) >, shape ``(m, m)``.
        one_by_one: Modules whose gradients needed one backward pass per sample, and the reasons.
        by_network: Parameters for which the whole network was run for each sample, since they are
            used outside the layer that holds them.
        seconds: Seconds that a direction was expected to take, before any was taken.
    """

    kernel: Tensor
    one_by_one: Mapping[str, str]
    by_network: Sequence[str]
    seconds: float


class OutputChanges(NamedTuple):
    """Changes of outputs due to gradient steps on the losses of m samples.

    Attributes:
        changes: < d (v_r.f)(x_j), d L(x_i) > by r, j, i, shape ``(R, m, m)``: minus the change of
            v_r.f at x_j due to a step on x_i, per unit of the learning rate.
        losses: Gradients of the losses with respect to the outputs, shape ``(m, C)``.
        one_by_one: As in `TangentKernel`.
    """

    changes: Tensor
    losses: Tensor
    one_by_one: Mapping[str, str]


def tangent_kernel(
    network: Network,
    directions: Tensor,
    own: Sequence[int] | None = None,
    advance: Callable[[], None] = lambda: None,
    foresee: Callable[[float], None] = lambda seconds: None,
) -> TangentKernel:
    """Compute the inner products of all samples' gradients, summed over output directions.

    Args:
        network: The network on m samples.
        directions: Output directions v_r, shape ``(R, C)``.
        own: Indices of the directions to sum over, such as one process's share; None for all.
        advance: Called after each direction.
        foresee: Called before the first direction with the seconds that each will take, estimated
            from the check.

    Returns:
        The kernel, with the modules and parameters that needed a slower method.

    Raises:
        ValueError: If the gradients of single samples do not add up to that of the batch.
    """
    chosen = range(len(directions)) if own is None else own
    with network.undisturbed():
        seen, v = checked_pass(network, directions, chosen)
        foresee(seen.seconds)
        kernel = exact(torch.zeros(network.m, network.m, device=v.device))
        for r in chosen:
            g = seen.gradients(v[r])
            kernel += seen.gram(g, g)
            advance()
    whole = (kernel + kernel.mT) / 2
    return TangentKernel(whole, seen.one_by_one(), seen.by_network(), seen.seconds)


def output_changes(
    network: Network,
    directions: Tensor,
    losses: Callable[[Tensor], Tensor],
    own: Sequence[int] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> OutputChanges:
    """Compute the inner products of output gradients and loss gradients for all pairs of samples.

    Args:
        network: The network on m samples.
        directions: Output directions v_r, shape ``(R, C)``.
        losses: Returns the gradients of the losses with respect to given outputs; both have shape
            ``(m, C)``.
        own: Indices of the directions to compute, such as one process's share; the changes in other
            directions are zero. None for all.
        advance: Called after each direction.

    Returns:
        The changes, with the gradients of the losses.

    Raises:
        ValueError: If the gradients of single samples do not add up to that of the batch.
    """
    chosen = range(len(directions)) if own is None else own
    with network.undisturbed():
        seen, v = checked_pass(network, directions, chosen)
        of_losses = losses(seen.f)
        changes = exact(torch.zeros(len(v), network.m, network.m, device=v.device))
        # of unit length: near zero loss they would vanish in the network's precision
        lengths = of_losses.norm(dim=1)
        if not bool((lengths > 1e-100).all()):  # squares underflow; any length serves
            lengths = torch.linalg.vector_norm(of_losses, torch.inf, dim=1)
        unit = of_losses / torch.where(lengths > 0, lengths, 1)[:, None]
        by_loss = seen.gradients(unit.to(seen.f))
        for r in chosen:
            changes[r] = seen.gram(seen.gradients(v[r]), by_loss) * lengths
            advance()
    return OutputChanges(changes, of_losses, seen.one_by_one())
