"""How a network is called: with which arguments, and by which function."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_nc.network.parameters import (
    Parameters,
    Single,
    accept,
    held_by,
    named_arguments,
    parameters_of,
    positional,
    taken_by,
)
from lightning_nc.network.wrong_calls import (
    call_with_advice,
    call_with_batch,
    call_with_single,
    cannot_be_called,
    no_forward,
)

# the module is of the class of the user, whose function may say so
Forward = str | Callable[[Any, Any], Any]


class Calling(NamedTuple):
    """How a network is called.

    Attributes:
        function: Calls it with inputs.
        after_batch: The arguments after the batch, of a network that takes the whole batch; None
            for a network that takes inputs.
        parameters: The parameters that tell what it takes of a dict; None if they do not.
    """

    function: Callable[[Any], Any]
    after_batch: tuple[Any, ...] | None = None
    parameters: Parameters | None = None

    def inputs_of(self, batch: Any, inputs: Any) -> Any:
        """What the network is called with: the whole batch, or its inputs.

        Of a dict, what the network names comes first, so that the first of its tensors is one that
        it takes; the rest may hold a mask for pools.
        """
        if self.after_batch is not None:
            return (batch, *self.after_batch)
        if self.parameters is None or not isinstance(inputs, Mapping):
            return self.named(inputs)
        taken = taken_by(self.parameters, inputs)
        named = taken is not inputs and isinstance(taken, Mapping)
        return {**taken, **inputs} if named else taken

    def named(self, inputs: Any) -> Any:
        """The inputs; several get the names of parameters, by which pools find a mask."""
        if self.parameters is None or type(inputs) not in (tuple, list):
            return inputs
        fits = accept(self.parameters, tuple(inputs), {})
        return named_arguments(self.parameters, inputs) if fits else inputs


def calling(
    model: nn.Module, forward: Forward | None = None, wrapper: nn.Module | None = None
) -> Calling:
    """Return how a network is called.

    A function whose first parameter is called ``batch`` takes the whole batch, and 0 for a second
    parameter ``batch_idx``.

    Args:
        model: The network.
        forward: The name of a submodule or method to call instead of the network, or a function
            ``forward(module, inputs)``.
        wrapper: The module through which all calls must go, such as that of FSDP around a network,
            or a network that gathers sharded parameters when it is called itself.

    Example:
        >>> import torch
        >>> model = nn.ModuleDict({"net": nn.Linear(2, 3)})
        >>> calling(model, "net").function(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """
    called: Any = model if forward is None else forward
    if isinstance(forward, str):
        called = _named(model, forward)
    if called is None or (called is model and not has_forward(model)):
        return Calling(partial(_refuse, no_forward(model, forward)))
    if called is model:
        outer = model if wrapper is None else wrapper
        function: Any = partial(call_model, outer, like=model)
    else:
        own = partial(call_model, called) if isinstance(forward, str) else partial(called, model)
        function = own if wrapper is None else partial(_call_within, wrapper, model, own)
    parameters = None if called is forward else parameters_of(called)
    names = positional(parameters or {})
    after: tuple[Any, ...] | None = None
    if names[:1] == ["batch"]:
        after = (0,) if names[1:2] == ["batch_idx"] else ()
        function, parameters = partial(call_with_batch, function), None
    return Calling(partial(call_with_advice, model, function), after, parameters)


def call_model(
    model: Callable[..., Any], inputs: Any, like: Callable[..., Any] | None = None
) -> Any:
    """Call a network with a tensor, a tuple of arguments or a dict of keyword arguments.

    Of a dict, keys that the network does not name are left out. If it names none and takes a single
    argument, that is the only value, or the only tensor of several axes, beside identifiers and
    file names; without one, it is the dict. An object, such as a graph, is the only argument, or
    has the arguments as attributes.

    Args:
        model: The network, or another function.
        inputs: The inputs.
        like: The network whose parameters count, if ``model`` is a wrapper around it.

    Raises:
        TypeError: If the network cannot be called with the inputs.
    """
    parameters = parameters_of(model if like is None else like)
    if isinstance(inputs, Mapping):
        inputs = taken_by(parameters, inputs)
    if isinstance(inputs, Single):
        return call_with_single(model, parameters, inputs)
    if not isinstance(inputs, Mapping):
        args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        if accept(parameters, args, {}):
            return model(*args)
        held = {} if isinstance(inputs, tuple | list | Tensor) else held_by(inputs, parameters)
        if held and accept(parameters, (), held):
            return model(**held)
    elif accept(parameters, (), inputs):
        return model(**inputs)
    raise TypeError(cannot_be_called(parameters, inputs))


def _call_within(
    wrapper: nn.Module, model: nn.Module, function: Callable[[Any], Any], inputs: Any
) -> Any:
    """Call a function in place of the ``forward`` of a network inside its wrapper."""
    attributes = vars(model)
    before = {name: attributes[name] for name in ("forward",) if name in attributes}

    def in_place_of_forward(inputs: Any) -> Any:
        del attributes["forward"]  # the function may call the network itself
        attributes.update(before)
        return function(inputs)

    attributes["forward"] = in_place_of_forward
    try:
        return wrapper(inputs)
    finally:
        attributes.pop("forward", None)
        attributes.update(before)


def has_forward(model: nn.Module) -> bool:
    """Whether a module defines ``forward``, which a LightningModule may leave out."""
    if "forward" in vars(model):
        return True
    owner = next(kind for kind in type(model).__mro__ if "forward" in vars(kind))
    return owner is not nn.Module and owner.__name__ != "LightningModule"


def _named(model: nn.Module, name: str) -> Any:
    """The submodule or method of a name; None if it cannot be called."""
    found: Any = model
    for part in name.split("."):
        found = getattr(found, part, None)
    usable = has_forward(found) if isinstance(found, nn.Module) else callable(found)
    return found if usable else None


def _refuse(text: str, inputs: Any) -> Any:
    raise ValueError(text)
