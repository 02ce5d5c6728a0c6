"""Similarity of samples: how far a gradient step on one moves the outputs on another."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nc.functional.gradient_kernel import (
    network_on,
    output_directions,
    warn_of_slow_layers,
)
from lightning_nc.functional.local_elasticity import only_positive
from lightning_nc.functional.loss_gradients import Loss, loss_gradients
from lightning_nc.functional.powers_of_two import scale_of, scaled
from lightning_nc.tangent.kernel import output_changes
from lightning_nc.tangent.steps import changes_by_steps


def relative_similarity(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    loss: Loss | None = None,
    rate: float | None = None,
    parameters: Iterable[str] | None = None,
) -> Tensor:
    r"""How far a gradient step on one sample moves the outputs on others, relative to its own.

    .. math:: S_{rel}(x, x') = \frac{\lVert f(x', w^+) - f(x', w) \rVert}
        {\lVert f(x, w^+) - f(x, w) \rVert}, \quad w^+ = w - \gamma \partial_w L(f(x, w), y)

    The vector norm over outputs is the multi-class form; for one output it is the absolute value.

    Args:
        model: The network, in evaluation mode; it is not modified.
        inputs: The m samples: a tensor, or a tuple or dict of arguments.
        targets: Their labels or targets, shape ``(m, ...)``.
        loss: A function ``loss(outputs, targets)``; by default the cross-entropy of the logits,
            binary for one output.
        rate: Learning rate gamma of an actual step, which needs m forward passes; None computes the
            limit of small rates exactly, from derivatives.
        parameters: Names or globs of the parameters w, as in `gradient_kernel`; by default those
            with ``requires_grad``.

    Returns:
        S_rel(x_i, x_j) for a step on x_i, shape ``(m, m)``, float64, dimensionless: 1 on the
        diagonal, >= 0 elsewhere, and NaN in row i if the step does not move the outputs on x_i.

    Raises:
        ValueError: If the outputs of a sample depend on other samples or are not a row of numbers,
            or if the rate is not positive.

    Warns:
        RuntimeWarning: If the gradients of a layer took a backward pass for each sample.

    Example:
        The output of a linear network with one output moves in proportion to x.x' + 1, here 6, 4
        and 10:

        >>> model, inputs = nn.Linear(2, 1), torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> relative_similarity(model, inputs, torch.tensor([1.0, 0.0]))
        tensor([[1.0000, 0.6667],
                [0.4000, 1.0000]], dtype=torch.float64)

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR.
    """
    changes, _ = _changes(model, inputs, targets, loss, rate, parameters)
    return relative_of(scaled(changes, (0, 1)).square().sum(0).sqrt())


def kernelized_similarity(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    loss: Loss | None = None,
    rate: float | None = None,
    parameters: Iterable[str] | None = None,
) -> Tensor:
    r"""How far a gradient step on one sample moves the others, per unit of its loss gradient.

    .. math:: S_{ker}(x, x') = \frac{f(x', w^+) - f(x', w)}{-\gamma\, \partial L / \partial f(x)}

    For small rates this is the tangent kernel :math:`\langle \partial f(x'), \partial f(x)
    \rangle`. With several outputs, the change is projected on :math:`v = \partial L / \partial
    f(x)`:

    .. math:: S_{ker}(x, x') = \frac{\langle v, f(x', w^+) - f(x', w) \rangle}
        {-\gamma \lVert v \rVert^2}

    Args:
        model: The network, in evaluation mode; it is not modified.
        inputs: The m samples: a tensor, or a tuple or dict of arguments.
        targets: Their labels or targets, shape ``(m, ...)``.
        loss: As in `relative_similarity`.
        rate: Learning rate gamma of an actual step; None computes the limit of small rates exactly.
        parameters: Names or globs of the parameters w, as in `gradient_kernel`; by default those
            with ``requires_grad``.

    Returns:
        S_ker(x_i, x_j) for a step on x_i, shape ``(m, m)``, float64, of either sign; the diagonal
        is positive in the limit of small rates. NaN in row i if the loss gradient at x_i is zero.
        Not symmetric in general; the papers use (S + S^T) / 2.

    Raises:
        ValueError: If the outputs of a sample depend on other samples or are not a row of numbers,
            or if the rate is not positive.

    Warns:
        RuntimeWarning: If the gradients of a layer took a backward pass for each sample.

    Example:
        For a linear network with one output, S_ker is x.x' + 1 for any loss and rate:

        >>> model, inputs = nn.Linear(2, 1).double(), torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> S = kernelized_similarity(model, inputs.double(), torch.tensor([1.0, 0.0]), rate=0.5)
        >>> S.round(decimals=9)
        tensor([[ 6.,  4.],
                [ 4., 10.]], dtype=torch.float64)

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR.
    """
    changes, losses = _changes(model, inputs, targets, loss, rate, parameters)
    scale = scale_of(losses.to(changes), 1)  # the changes are proportional to the gradients
    v = losses.to(changes) / scale  # (m, C)
    along = torch.einsum("cji,ic->ij", changes / scale.mT, v)
    return along / only_positive(v.square().sum(1))[:, None]


def relative_of(moves: Tensor) -> Tensor:
    """Return S_rel from the distances by which a step on i moves j, given as entries (j, i)."""
    return moves.mT / only_positive(moves.diagonal())[:, None]


def _changes(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    loss: Loss | None,
    rate: float | None,
    parameters: Iterable[str] | None,
) -> tuple[Tensor, Tensor]:
    """Return minus the changes of the outputs per unit of rate, and the loss gradients.

    The changes are indexed by output, by the sample that moves and by the sample of the step, shape
    ``(C, m, m)``. The gradients are with respect to the outputs, shape ``(m, C)``.
    """
    network = network_on(model, inputs, "all", parameters)
    if rate is not None:
        by = partial(loss_gradients, loss=loss)
        found = changes_by_steps(network, by, targets, rate)
    else:
        directions = output_directions("all", network.num_outputs, 0)
        by_all = partial(loss_gradients, targets=targets, loss=loss)
        found = output_changes(network, directions, by_all)
        warn_of_slow_layers(found.one_by_one)
    return found.changes, found.losses
