"""The parameters of a network's ``forward``, and what it takes of its inputs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

Parameters = Mapping[str, inspect.Parameter]


class Single(NamedTuple):
    """What a network of a single parameter is given of a dict that does not name it."""

    value: Any


class Arguments(tuple[Any, ...]):
    """Arguments of a network in order, with the names of the parameters that take them.

    Attributes:
        names: The names.
    """

    names: tuple[str, ...]


def named_arguments(parameters: Parameters, args: Sequence[Any]) -> Arguments:
    """Arguments in order, named as far as parameters have names."""
    named = Arguments(args)
    named.names = tuple(positional(parameters))
    return named


def by_name(inputs: Any) -> Mapping[str, Any]:
    """The inputs by name, as far as they have names."""
    named = dict(zip(inputs.names, inputs, strict=False)) if isinstance(inputs, Arguments) else {}
    # a network that takes the batch has it as its first argument
    first = inputs[0] if isinstance(inputs, tuple) and inputs else inputs
    return {**named, **first} if isinstance(first, Mapping) else named


def parameters_of(called: Callable[..., Any]) -> Parameters:
    """The parameters of a network's ``forward`` or of a function; any if they cannot be told."""
    function = called.forward if isinstance(called, nn.Module) else called
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # such as a function of C
        return inspect.signature(lambda *args, **kwargs: None).parameters


def positional(parameters: Parameters) -> list[str]:
    """Names of the parameters that take a single argument each; ``**batch`` takes keywords."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, each in parameters.items() if each.kind not in several]


def accept(parameters: Parameters, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether parameters can be given these arguments."""
    try:
        inspect.Signature(list(parameters.values())).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def takes_one(module: nn.Module) -> bool:
    """Whether a module can be called with its input alone, unlike a layer of a graph network."""
    return accept(parameters_of(module), (None,), {})


def taken_by(parameters: Parameters, inputs: Mapping[str, Any]) -> Any:
    """What a network takes of a dict: the part that it names, or a single value."""
    named = {name: inputs[name] for name in parameters if name in inputs}
    # before keywords, for ``forward(*args, **kwargs)`` that hands all on to another network
    if len(inputs) == 1 and not named and accept(parameters, tuple(inputs.values()), {}):
        return (*inputs.values(),)
    if accept(parameters, (), inputs):
        return inputs
    if named:
        return named if accept(parameters, (), named) else inputs
    if not inputs or len(parameters) != 1 or not positional(parameters):
        return inputs  # others may be meant for further parameters
    shaped = [each for each in inputs.values() if isinstance(each, Tensor) and each.ndim > 1]
    return Single(shaped[0] if len(shaped) == 1 else inputs)


def held_by(inputs: Any, parameters: Parameters) -> dict[str, Any]:
    """What an object holds under the names of parameters."""
    found = {name: getattr(inputs, name, None) for name in parameters}
    return {name: value for name, value in found.items() if value is not None}


def signature(parameters: Parameters) -> str:
    """The parameters as they are written."""
    return f"forward({', '.join(map(str, parameters.values()))})"
