"""Calls that fail: what the network was called with, and the way out."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from lightning_nc.network.nesting import described, floating_tensor_in
from lightning_nc.network.parameters import Arguments, Parameters, Single, signature

# what torch says of inputs of other sizes, of numbers for tokens, or of several inputs for one
_OF_INPUTS = (
    *("shapes cannot be multiplied", "The size of tensor", "expected input"),
    *("scalar types", "Boolean value of Tensor"),
)
_METHODS = {"float32": "net.float()", "float64": "net.double()"}
# what is raised by a network that was given a dict for a tensor, or the other way round
_OF_KINDS = (TypeError, AttributeError, IndexError, KeyError)
_SAID = "The network "  # in what is said here, once
_WITHOUT_GRADIENTS = (
    ". The network takes gradients when it is called, and a measurement has none, as in "
    "validation: use torch.enable_grad() in its forward, or Probe(..., forward=lambda module, "
    "inputs: torch.enable_grad()(module)(inputs))."
)


def call_with_advice(model: nn.Module, function: Callable[[Any], Any], inputs: Any) -> Any:
    """Call a function; say so if inputs do not fit, or gradients are missing."""
    try:
        return function(inputs)
    except _OF_KINDS as error:
        if _SAID in str(error):
            raise
        raise TypeError(f"{_in_a_line(error)}{_when_called_with(inputs)}") from error
    except RuntimeError as error:
        if "does not require grad" in str(error):
            raise RuntimeError(f"{error}{_WITHOUT_GRADIENTS}") from error
        # what torch says of two types that do not fit differs by layer, but has this word
        of_types = "type" in str(error)
        if of_types and (text := _of_other_types(model, inputs, error)):
            raise TypeError(text) from error
        # labels, or images that are not scaled yet
        of_whole_numbers = of_types and floating_tensor_in(inputs) is None
        if of_whole_numbers or any(word in str(error) for word in _OF_INPUTS):
            raise RuntimeError(f"{error}{_when_called_with(inputs)}") from error
        raise


def _of_other_types(model: nn.Module, inputs: Any, error: Exception) -> str:
    """What is said of inputs in another precision than the network; empty if they have its own."""
    given, own = floating_tensor_in(inputs), filter(torch.is_floating_point, model.parameters())
    types = {each.dtype for each in own}
    if given is None or not types or given.dtype in types:
        return ""
    of_inputs, *of_network = (
        str(each).removeprefix("torch.") for each in (given.dtype, *sorted(types, key=str))
    )
    return (
        f"The inputs are {of_inputs}, but the network's parameters are "
        f"{' and '.join(of_network)}: {error}. Convert the network, as by "
        f"{_METHODS.get(of_inputs, f'net.to(torch.{of_inputs})')}, or give a loader whose "
        f"inputs are {of_network[0]}."
    )


def _when_called_with(inputs: Any) -> str:
    given = inputs.value if isinstance(inputs, Single) else inputs
    given = tuple(given) if isinstance(given, Arguments) else given
    return (
        f". {_SAID}was called with {described(given)}. If it takes something else, say what: "
        "Probe(..., unpack=lambda batch: (inputs, labels)); if its forward does not compute the "
        "classes, say how to call it: Probe(..., forward=lambda module, inputs: ...)."
    )


def call_with_single(model: Callable[..., Any], parameters: Parameters, inputs: Single) -> Any:
    """Call a network with what may be its only argument, and say what that was if it is not."""
    try:
        return model(inputs.value)
    except _OF_KINDS as error:
        raise TypeError(
            f"The network is {signature(parameters)} and was called with "
            f"{described(inputs.value)}, where it raised {_in_a_line(error)}. Give it what it "
            'takes: Probe(..., unpack=lambda batch: (batch["..."], labels)); or all as one '
            "argument: ((batch,), labels)."
        ) from error


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0].removesuffix('.')}"


def call_with_batch(function: Callable[[Any], Any], inputs: Any) -> Any:
    """Call a function that takes the whole batch, and say so if it does not."""
    try:
        return function(inputs)
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"{type(error).__name__}: {error}. The network was called with the whole batch, since "
            "its first parameter is called batch. If it takes the inputs, say which these are: "
            "Probe(..., unpack=lambda batch: (inputs, labels))."
        ) from error


def no_forward(model: nn.Module, name: Any) -> str:
    """What is said of a network, or of the name of a part of it, that cannot be called."""
    children = dict(model.named_children())
    if name is not None:
        return (
            f"forward={name!r} is no submodule or method of {type(model).__name__} that can be "
            f"called. Its submodules are {', '.join(map(repr, children))}."
        )
    owners = [
        child for child, module in children.items() if next(module.parameters(), None) is not None
    ]
    example = (
        repr(owners[0]).replace("'", '"') if len(owners) == 1 else "lambda module, inputs: ..."
    )
    return (
        f"{type(model).__name__} has no forward(), so that it is not known how to call it with the "
        f"inputs of a batch. Name the submodule or method to call: Probe(..., forward={example}); "
        f"or define forward(). Its submodules are {', '.join(map(repr, children))}."
    )


def cannot_be_called(parameters: Parameters, inputs: Any) -> str:
    """What is said of inputs that do not fit the parameters of a network."""
    text = f"The network is {signature(parameters)} and cannot be called with {described(inputs)}. "
    if isinstance(inputs, tuple | list) and len(inputs) > 1:
        return text + (
            "Give it one of these, such as the first of two views: Probe(..., unpack=lambda batch: "
            "(batch[0][0], batch[1])); or all as one argument: ((batch[0],), batch[1])."
        )
    if isinstance(inputs, Mapping):
        x = floating_tensor_in(inputs)
        name = next((name for name, part in inputs.items() if part is x), next(iter(inputs), ""))
        return text + (
            f'Give it what it takes: Probe(..., unpack=lambda batch: (batch["{name}"], labels)).'
        )
    return text + (
        "Give it all that it takes: Probe(..., unpack=lambda batch: ((x, ...), labels)), or say "
        "how to call it: Probe(..., forward=lambda module, inputs: module(inputs, ...))."
    )
