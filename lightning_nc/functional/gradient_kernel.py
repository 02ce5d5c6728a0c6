r"""The tangent kernel of a network: how much a step on one sample moves another."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_nc.tangent.differentiable_network import Network, number_of_samples
from lightning_nc.tangent.kernel import tangent_kernel

Outputs = Literal["all"] | int | Callable[[Any], Tensor]


def gradient_kernel(
    model: nn.Module,
    inputs: Any,
    outputs: Outputs = "all",
    parameters: Iterable[str] | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Trace of the empirical tangent kernel: how alike samples are to a gradient step.

    .. math:: K(a, b) = \sum_c \langle \partial_w f_c(a), \partial_w f_c(b) \rangle

    No gradient is stored: of one forward pass and one backward pass per output, each layer adds
    its part from its inputs and output gradients, in closed form for linear, convolutional,
    embedding and normalisation layers, else by its own backward pass for each sample. The sum of
    each layer's gradients is compared with that of an ordinary backward pass; where they differ
    (a weight that is used outside of its layer), the network as a whole is differentiated.

    Args:
        model: The network, in evaluation mode: the outputs of a sample must be its own. Neither it
            nor its gradients are touched.
        inputs: Of m samples: a tensor, or a tuple or dict of arguments.
        outputs: ``"all"`` sums over all outputs, at a backward pass each. A number takes as many
            random directions in their place, the same for all samples: an unbiased estimate, exact
            from C on. A function of the network's output gives one number per sample, the same one
            for all samples; not the logit of each sample's own class, for which a linear network
            would have no kernel between classes.
        parameters: Names or globs of the parameters w, as in ``named_parameters()``; by default
            those that are trained.
        seed: Of random directions.

    Returns:
        Symmetric and positive semidefinite, shape ``(m, m)``, float64; in squared units of f by
        those of w. Gradients are of the network's precision, or float32 if that is half (not
        with activation checkpointing): take ``model.double()`` for all digits.

    Raises:
        ValueError: If a sample's outputs depend on the others, or are no row of numbers, or
            parameters are used by another reference than the module that holds them.

    Warns:
        RuntimeWarning: If gradients of a layer took a backward pass for each sample.

    Example:
        For a linear network K(a, b) is the number of outputs times (a.b + 1):

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
    r"""The part of the tangent kernel that the last linear layer has.

    .. math:: K(a, b) = C (\langle h_a, h_b \rangle + 1)

    for C outputs, since :math:`\partial f_c / \partial w_{c'} = h` if c = c', else 0; without the 1
    for a layer without bias.

    Args:
        features: Inputs h of the layer, shape ``(m, d)``.
        num_outputs: C.
        bias: Whether the layer has one.

    Returns:
        Shape ``(m, m)``, float64.

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
    """A network whose outputs are ``outputs`` of what it gives, if that is a function."""
    inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
    call = partial(_call, model, outputs if callable(outputs) else None)
    return Network(model, call, inputs, number_of_samples(inputs), parameters)


def output_directions(outputs: Outputs, num_outputs: int, seed: int) -> Tensor:
    r"""Directions v_r with :math:`\sum_r \mathbb{E} v_r v_r^T = I`, shape ``(R, C)``, float64.

    Random ones are orthogonal within blocks of C, so that R = C is exact, and R < C varies less
    than with independent ones.
    """
    require_outputs(outputs)
    C = num_outputs
    if not isinstance(outputs, int):
        return torch.eye(C, dtype=torch.float64)
    random = torch.Generator().manual_seed(seed)
    blocks = [
        torch.linalg.qr(torch.randn(C, C, dtype=torch.float64, generator=random)).Q
        for _ in range(-(-outputs // C))
    ]
    return torch.cat(blocks)[:outputs] * (C / outputs) ** 0.5


def require_outputs(outputs: Outputs) -> None:
    """Raise unless these are outputs of which a kernel can be."""
    if isinstance(outputs, bool) or (isinstance(outputs, int) and outputs < 1):
        raise ValueError(f"outputs needs a number of directions of 1 or more, got {outputs}.")
    if not (callable(outputs) or outputs == "all" or isinstance(outputs, int)):
        raise TypeError(
            f'outputs must be "all", a number of directions, or a function, got {outputs!r}.'
        )


def warn_of_slow_layers(one_by_one: Mapping[str, str]) -> None:
    """Say which layers took a backward pass for each sample, and why."""
    if one_by_one:
        warnings.warn(slow_layers(one_by_one), RuntimeWarning, stacklevel=3)


def slow_layers(one_by_one: Mapping[str, str]) -> str:
    """A sentence on layers whose gradients took a backward pass for each sample."""
    names = ", ".join(repr(name) for name in list(one_by_one)[:5])
    return (
        f"gradients of {names} took a backward pass for each sample, which is slow: "
        f"{next(iter(one_by_one.values()))}"
    )


def _call(model: nn.Module, scalar: Callable[[Any], Tensor] | None, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    else:
        output = model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
    return output if scalar is None else scalar(output)
