"""Find random generators, seed them for each batch, and restore their states."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lightning_nc.guards.names import OWN
from lightning_nc.guards.reachable import GENERATORS
from lightning_nc.guards.restoring import restoring
from lightning_nc.guards.torch_internals import forked_off


class _Devices(NamedTuple):
    """The generators of all devices of one kind.

    Attributes:
        kind: The kind.
        read: Returns their states.
        write: Sets their states.
        seed: Seeds them alike.
    """

    kind: str
    read: Callable[[], Any]
    write: Callable[[Any], None]
    seed: Callable[[int], None]


def seed_generators(seed: int, number: int, held: Sequence[Any] = ()) -> None:
    """Seed global generators and those held by objects for one batch, alike in all processes.

    Global ones are those of torch, of all devices in use, of NumPy and of Python.

    Args:
        seed: Seed of the probe.
        number: Number of the batch.
        held: Generators held by the data or the network.
    """
    mixed = (seed * 1_000_003 + number) % 2**32
    # not torch.manual_seed, which queues a call (and a stack trace) for devices not yet initialised
    torch.default_generator.manual_seed(mixed)
    for devices in _devices_in_use():
        devices.seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)
    for generator in held:
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(mixed).state
        elif isinstance(generator, torch.Generator):
            generator.manual_seed(mixed)
        else:
            generator.seed(mixed)


@contextmanager
def generators_kept(held: Sequence[Any] = ()) -> Iterator[None]:
    """Restore the states of global generators, those of all devices in use among them.

    Args:
        held: Other generators to restore, which objects hold.
    """
    with restoring() as later:
        later("torch's generator", torch.set_rng_state, torch.get_rng_state())
        for devices in _devices_in_use():
            later(f"the generators of {devices.kind}", devices.write, devices.read())
        later("NumPy's generator", np.random.set_state, np.random.get_state())
        later("Python's generator", random.setstate, random.getstate())
        for generator in held:
            what = f"a {type(generator).__name__} of the data or the network"
            later(what, _restore, generator, _state(generator))
        yield


def _devices_in_use() -> list[_Devices]:
    """The kinds of devices that this process has initialised."""
    found: list[_Devices] = []
    cuda: Any = torch.cuda
    xpu: Any = torch.xpu
    if cuda.is_initialized():
        found.append(_of_cards())
    if xpu.is_initialized():
        every = xpu.get_rng_state_all, xpu.set_rng_state_all, xpu.manual_seed_all
        found.append(_Devices("XPU", *every))
    if torch.backends.mps.is_available() and not forked_off(torch.mps):  # initialised with torch
        mps = torch.mps
        found.append(_Devices("MPS", mps.get_rng_state, mps.set_rng_state, mps.manual_seed))
    return found


def _of_cards() -> _Devices:
    """The generators of all CUDA devices, written to by way of others that share their states.

    One that is written to itself makes cuDNN start the dropout of recurrent layers anew at the next
    training step, with a seed that it draws from the generator: training would change.
    """
    sharing = [each.graphsafe_get_state() for each in torch.cuda.default_generators]

    def write(states: Sequence[Tensor]) -> None:
        for each, state in zip(sharing, states, strict=True):
            each.set_state(state)

    def seed(number: int) -> None:
        for each in sharing:
            each.manual_seed(number)

    return _Devices("CUDA", lambda: [each.get_state() for each in sharing], write, seed)


def generators_in_model(model: nn.Module) -> list[Any]:
    """Return the random generators reachable from the attributes of modules."""
    attributes = (vars(module).items() for module in model.modules())
    values = [value for items in attributes for name, value in items if name not in OWN]
    return held_generators(*values, deepest=3)


def held_generators(*things: Any, deepest: int = 10) -> list[Any]:
    """Return the random generators reachable through attributes, containers and functions.

    Args:
        *things: The objects to start from.
        deepest: Largest number of steps from one of them to a generator.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting = deque((thing, 0) for thing in things)
    while waiting:
        thing, depth = waiting.popleft()  # breadth first: depth is the length of the shortest path
        if id(thing) in seen or depth > deepest:
            continue
        seen.add(id(thing))
        if isinstance(thing, GENERATORS):
            if not isinstance(thing, random.SystemRandom):  # it has no state
                found.append(thing)
        else:
            waiting += [(part, depth + 1) for part in _parts(thing)]
    return found


def _parts(thing: Any) -> Iterable[Any]:
    """Return items of short containers, attributes of objects, and objects bound to functions."""
    if isinstance(thing, dict | list | tuple):
        values = dict.values(thing) if isinstance(thing, dict) else thing
        # those of long ones are found by `generators_reached`
        return values if len(values) < 1000 else ()
    if isinstance(thing, MethodType):
        return (thing.__self__,)
    if isinstance(thing, partial):
        return thing.func, thing.args, thing.keywords
    if isinstance(thing, FunctionType):
        cells = thing.__closure__ or ()
        return [cell.cell_contents for cell in cells if cell != CellType()]  # empty cells raise
    if hasattr(thing, "__dict__") and not isinstance(thing, type | ModuleType | Tensor):
        return [value for name, value in vars(thing).items() if name not in ("trainer", "_trainer")]
    return ()


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
