"""How a batch reaches the network."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import nn

from lightning_nc.guards.generators import generators_in_model, held_generators
from lightning_nc.network.capture import call_model


def _no_progress() -> None:
    """Called in place of a display."""


class Runner(NamedTuple):
    """A network and the way to it.

    Attributes:
        model: The module, without wrappers that only training needs.
        device: The device that it runs on.
        move: Brings a batch to the device.
        precision: Gives the context of a forward pass.
        call: Calls the network with inputs.
        around: What else takes part in moving batches, such as a datamodule.
        advance: To be called after each pass through the network that is not made by ``call``.
    """

    model: nn.Module
    device: torch.device
    move: Callable[[Any], Any]
    precision: Callable[[], AbstractContextManager[Any]]
    call: Callable[[Any], Any]
    around: Any = None
    advance: Callable[[], None] = _no_progress

    def generators(self) -> list[Any]:
        """Random generators that the network, or what is around it, may draw from."""
        return generators_in_model(self.model) + held_generators(self.around, deepest=3)


def plain_runner(model: nn.Module) -> Runner:
    """Bring batches to the device of the network's first parameter."""
    device = next(model.parameters(), torch.empty(0)).device
    move = partial(_moved, device=device)
    return Runner(model, device, move, nullcontext, partial(call_model, model))


@runtime_checkable
class _Movable(Protocol):
    """Anything with a method ``to``: tensors, and batches of other libraries."""

    def to(self, device: torch.device) -> Any:
        """The same on a device."""


def _moved(batch: Any, device: torch.device) -> Any:
    """The batch on a device, whatever its nesting."""
    return apply_to_collection(batch, _Movable, lambda part: part.to(device))
