r"""The tangent kernel of a network: how far a step on one sample moves the outputs on another."""

import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, SupportsIndex

import torch
from torch import Tensor, nn

from lightning_nc.tangent.differentiable_network import Network, number_of_samples
from lightning_nc.tangent.kernel import tangent_kernel
from lightning_nc.wording import listed

Outputs = Literal["all"] | int | Callable[[Any], Tensor]


def gradient_kernel(
    model: nn.Module,
    inputs: Any,
    outputs: Outputs = "all",
    parameters: Iterable[str] | None = None,
    seed: int = 0,
) -> Tensor:
    r"""The trace of the empirical tangent kernel: how similar two samples are to gradient steps.

    .. math:: K(a, b) = \sum_c \langle \partial_w f_c(a), \partial_w f_c(b) \rangle

    Gradients of single samples are not stored. There is one forward pass, and one backward pass per
    output, which forms no gradients of weights summed over samples. Each layer adds its part of the
    kernel from its inputs and output gradients: in closed form for linear, convolutional, embedding
    and normalisation layers, otherwise by a backward pass through the layer for each sample. The
    sum of each layer's gradients is compared with that of an ordinary backward pass. Where they
    differ (a weight is used outside its layer), the whole network is differentiated for each
    sample.

    Memory is that of a forward pass with its graph, of the gradients of all layers' outputs for one
    direction, of at most 2^24 inner products of inputs that each layer keeps for all directions,
    and of gradients of some weights of one layer at a time: 2^24 numbers for a layer with a closed
    form (if a row of all m samples is not larger), 2^26 for another (likewise for a parameter).

    Args:
        model: The network, in evaluation mode, so that the outputs of a sample do not depend on the
            other samples. Neither the network nor its gradients are modified.
        inputs: The m samples: a tensor, or a tuple or dict of arguments.
        outputs: ``"all"`` sums over all C outputs, with one backward pass each. An integer R uses R
            random output directions instead, the same for all samples: an unbiased estimate, exact
            if R is a multiple of C. A function maps the network's output to one number per sample.
            It must treat all samples alike and not, say, pick the logit of each sample's own class,
            for which the kernel of a linear network between classes is zero.
        parameters: Names or globs of the parameters w, as in ``named_parameters()``, where ``*``
            stops at a dot and ``**`` does not; by default those with ``requires_grad``.
        seed: Seed of the random directions.

    Returns:
        The kernel, symmetric and positive semidefinite, shape ``(m, m)``, float64, in squared units
        of f per squared unit of w. Gradients are computed in the network's precision, or in float32
        if that is half (except with activation checkpointing); pass ``model.double()`` for full
        precision.

    Raises:
        TypeError: If ``outputs`` is none of the above.
        ValueError: If the outputs of a sample depend on other samples or are not a row of numbers,
            if a parameter is used through a reference other than the module that holds it, or if a
            number of directions is below 1.

    Warns:
        RuntimeWarning: If the gradients of a layer took a backward pass for each sample.

    Example:
        For a linear network, K(a, b) is the number of outputs times (a.b + 1):

        >>> model = nn.Linear(2, 3)
        >>> gradient_kernel(model, torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
        tensor([[18., 12.],
                [12., 30.]], dtype=torch.float64)

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR; Jacot, Gabriel & Hongler
        (2018), "Neural tangent kernel: convergence and generalization in neural networks", NeurIPS.
    """
    network = network_on(model, inputs, outputs, parameters)
    found = tangent_kernel(network, output_directions(outputs, network.num_outputs, seed))
    warn_of_slow_layers(found.one_by_one)
    return found.kernel


def last_layer_kernel(features: Tensor, num_outputs: int, bias: bool = True) -> Tensor:
    r"""The contribution of the last linear layer to the tangent kernel.

    .. math:: K(a, b) = C (\langle h_a, h_b \rangle + 1)

    for C outputs, since :math:`\partial f_c / \partial w_{c'}` is h if c = c' and 0 otherwise. The
    1 comes from the bias and is absent without one.

    Args:
        features: Inputs h of the layer, shape ``(m, d)``.
        num_outputs: Number of outputs C.
        bias: Whether the layer has a bias.

    Returns:
        The kernel, shape ``(m, m)``, float64.

    Example:
        >>> last_layer_kernel(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), num_outputs=3)
        tensor([[18., 12.],
                [12., 30.]], dtype=torch.float64)

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR.
    """
    h = features.double()
    return num_outputs * (h @ h.mT + float(bias))


def network_on(
    model: nn.Module, inputs: Any, outputs: Outputs, parameters: Iterable[str] | None
) -> Network:
    """Wrap a model and its inputs as a `Network`; ``outputs`` is applied if it is a function."""
    inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
    call = partial(_call, model, outputs if callable(outputs) else None)
    return Network(model, call, inputs, number_of_samples(inputs), parameters)


def output_directions(outputs: Outputs, num_outputs: int, seed: int) -> Tensor:
    r"""Directions v_r with :math:`\sum_r \mathbb{E} v_r v_r^T = I`, shape ``(R, C)``, float64.

    Random directions are orthogonal within blocks of C, so that R = C is exact and R < C has less
    variance than with independent directions.
    """
    outputs = require_outputs(outputs)
    C = num_outputs
    if not isinstance(outputs, int):
        return torch.eye(C, dtype=torch.float64)
    random = torch.Generator().manual_seed(seed)
    blocks = [
        torch.linalg.qr(torch.randn(C, C, dtype=torch.float64, generator=random)).Q
        for _ in range(-(-outputs // C))
    ]
    return torch.cat(blocks)[:outputs] * (C / outputs) ** 0.5


def require_outputs(outputs: Outputs) -> Outputs:
    """Return ``"all"``, a positive number of directions, also one of numpy, or a function."""
    if isinstance(outputs, SupportsIndex) and not isinstance(outputs, bool):
        outputs = operator.index(outputs)
    if isinstance(outputs, bool) or (isinstance(outputs, int) and outputs < 1):
        raise ValueError(f"The number of directions in outputs must be 1 or more, got {outputs}.")
    if not (callable(outputs) or outputs == "all" or isinstance(outputs, int)):
        raise TypeError(
            f'outputs must be "all", a number of directions, or a function, got {outputs!r}.'
        )
    return outputs


def warn_of_slow_layers(one_by_one: Mapping[str, str]) -> None:
    """Warn about layers whose gradients took a backward pass for each sample."""
    if one_by_one:
        warnings.warn(slow_layers(one_by_one), RuntimeWarning, stacklevel=3)


def slow_layers(one_by_one: Mapping[str, str]) -> str:
    """A sentence that names the layers that took a backward pass for each sample, and why."""
    return (
        f"gradients of {listed(map(repr, one_by_one))} took a backward pass for each sample, which "
        f"is slow: {next(iter(one_by_one.values()))}"
    )


def _call(model: nn.Module, scalar: Callable[[Any], Tensor] | None, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    else:
        output = model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
    return output if scalar is None else scalar(output)
