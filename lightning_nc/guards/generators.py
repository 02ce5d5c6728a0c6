"""Find random generators, seed them for each batch, and restore their states."""

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_nc.guards.names import OWN
from lightning_nc.guards.reachable import GENERATORS


def seed_generators(
    seed: int, number: int, held: Sequence[Any] = (), device: torch.device | None = None
) -> None:
    """Seed global generators and those held by objects for one batch, alike in all processes.

    Args:
        seed: Seed of the probe.
        number: Number of the batch.
        held: Generators held by the data or the network.
        device: Device whose generator to seed besides that of the CPU.
    """
    mixed = (seed * 1_000_003 + number) % 2**32
    # not torch.manual_seed, which queues a call (and a stack trace) for devices not yet initialised
    torch.default_generator.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(mixed)
    elif device is not None and device.type == "mps":
        torch.mps.manual_seed(mixed)
    for generator in held:
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(mixed).state
        elif isinstance(generator, torch.Generator):
            generator.manual_seed(mixed)
        else:
            generator.seed(mixed)


@contextmanager
def generators_kept(held: Sequence[Any] = (), device: torch.device | None = None) -> Iterator[None]:
    """Restore the states of global generators and of those held by objects.

    Args:
        held: Generators held by objects.
        device: Device whose generator to restore besides that of the CPU.
    """
    cpu, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    states = [(generator, _state(generator)) for generator in held]
    cuda = device if device is not None and device.type == "cuda" else None
    cuda_state = torch.cuda.get_rng_state(cuda) if cuda is not None else None
    on_mps = device is not None and device.type == "mps"
    mps_state = torch.mps.get_rng_state() if on_mps else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for generator, state in states:
            _restore(generator, state)
        if cuda_state is not None and cuda is not None:
            torch.cuda.set_rng_state(cuda_state, cuda)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


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
