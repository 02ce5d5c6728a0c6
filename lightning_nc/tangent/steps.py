"""Actual gradient steps on one sample at a time, on aliases of the parameters."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_nc.tangent.differentiable_network import Network
from lightning_nc.tangent.inner_products import exact
from lightning_nc.tangent.kernel import OutputChanges
from lightning_nc.tangent.used_parameters import leaves_of, require_aliases


def changes_by_steps(
    network: Network,
    loss_gradients: Callable[[Tensor, Tensor], Tensor],
    targets: Tensor,
    rate: float,
) -> OutputChanges:
    """Compute how a step on each sample changes the outputs of all, per unit of the rate.

    Args:
        network: The network on m samples.
        loss_gradients: Returns the gradients of the losses with respect to the outputs, given
            outputs and targets.
        targets: Targets of the samples, shape ``(m, ...)``.
        rate: Learning rate gamma.

    Returns:
        ``changes`` are (f(x_j, w) - f(x_j, w+)) / gamma by output, j and i, where w+ are the
        parameters after a step on x_i.

    Raises:
        ValueError: If the rate is not positive, or the network uses parameters in a way that
            bypasses the aliases.
    """
    if not rate > 0:
        raise ValueError(
            f"rate must be a positive learning rate, got {rate}. Use None for the limit of small "
            "rates."
        )
    aliases = network.aliases
    trained = {name: p for name, p in aliases.items() if p.requires_grad}
    changes, losses = [], []
    with network.undisturbed():
        with torch.no_grad():
            before = network.run()
        for sample in range(network.m):
            f = network.run([sample])
            require_aliases(network, leaves_of(f))
            v = loss_gradients(f.detach(), targets[sample : sample + 1])
            gradients = torch.autograd.grad(
                f, list(trained.values()), v.to(f), materialize_grads=True
            )
            stepped = {
                name: p - rate * g for (name, p), g in zip(trained.items(), gradients, strict=True)
            }
            with torch.no_grad():
                after = network.run(parameters={**aliases, **stepped})
            changes.append((exact(before) - exact(after)) / rate)
            losses.append(v)
    of_outputs = torch.stack(changes, -1).movedim(1, 0)
    return OutputChanges(of_outputs, torch.cat(losses), {})
