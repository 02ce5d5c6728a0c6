"""How batches reach the network."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_nc.guards.generators import generators_in_model, held_generators
from lightning_nc.guards.precision import with_float64
from lightning_nc.network.calling import Calling, Forward, calling


class Runner(NamedTuple):
    """A network and how to move batches to it and call it.

    Attributes:
        model: The module, without wrappers that only training needs.
        device: The device it runs on; of several, that of its inputs.
        move: Moves a batch to the device.
        precision: Returns the context manager that sets the precision of a forward pass.
        way: How the network is called.
        call: Calls it so with inputs.
        around: Other objects that take part in moving batches, such as a datamodule.
        advance: Must be called after each pass through the network that does not use ``call``.
        announce: Tells the user what a long measurement costs, before it is made.
    """

    model: nn.Module
    device: torch.device
    move: Callable[[Any], Any]
    precision: Callable[[], AbstractContextManager[Any]]
    way: Calling
    call: Callable[[Any], Any]
    around: Any = None
    advance: Callable[[], None] = lambda: None
    announce: Callable[[str], None] = lambda text: None

    @property
    def device_of_sums(self) -> torch.device:
        """Where the features of all layers are summed in float64, whatever devices they are on."""
        return with_float64(self.device)

    def generators(self) -> list[Any]:
        """Return the random generators that the network or ``around`` may draw from."""
        return generators_in_model(self.model) + held_generators(self.around, deepest=3)


def plain_runner(
    model: nn.Module,
    forward: Forward | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Runner:
    """Return a runner that moves batches to the device of the network's first parameter.

    A network that Fabric, ``DistributedDataParallel`` or ``DataParallel`` has wrapped is called
    itself, in the precision of Fabric: nothing is communicated.

    Args:
        model: The network.
        forward: How to call it, as in `calling`.
        advance: Called after each forward or backward pass through the network.
    """
    precision, convert = _precision_of(model)
    while type(model).__name__ in _WRAPPERS:
        model = model.module  # type: ignore[assignment]
    device = next(model.parameters(), torch.empty(0)).device
    way = calling(model, forward)

    def move(batch: Any) -> Any:
        return _moved_batch(convert(batch), device)

    def call(inputs: Any) -> Any:
        outputs = way.function(inputs)
        advance()
        return outputs

    return Runner(model, device, move, precision, way, call, advance=advance)


_WRAPPERS = ("_FabricModule", "DistributedDataParallel", "DataParallel")


def _precision_of(model: nn.Module) -> tuple[Callable[[], AbstractContextManager[Any]], Any]:
    """The context of forward passes, and the function that converts a batch for them."""
    if type(model).__name__ != "_FabricModule":
        return nullcontext, lambda batch: batch
    strategy: Any = getattr(model, "_strategy", None)
    if strategy is None:
        raise ValueError(
            "Fabric does not tell the precision of this network. Give the network itself: "
            "model.module."
        )
    return strategy.precision.forward_context, strategy.precision.convert_input


@runtime_checkable
class _Movable(Protocol):
    """Anything with a ``to`` method, such as a tensor or a batch of another library."""

    def to(self, device: torch.device) -> Any:
        """Return the object on a device."""


def _moved_batch(batch: Any, device: torch.device) -> Any:
    """Return the batch on a device, at any nesting."""

    def move(part: Any) -> Any:
        return moved_tensor(part, device) if isinstance(part, Tensor) else part.to(device)

    return apply_to_collection(batch, _Movable, move)


def moved_tensor(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, without waiting for CUDA.

    Others, such as MPS, may copy from memory that is in other use by then.
    """
    return x.to(device, non_blocking=device.type == "cuda")
