"""The one place that guards: a network looked at is afterwards the network it was."""

import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def unobtrusive(
    model: nn.Module,
    data: Any = None,
    batch_norm: Literal["eval", "batch"] = "eval",
    device: torch.device | None = None,
) -> Iterator[None]:
    """Evaluate a network inside the block and leave no trace, also after an exception.

    Kept: the random generators of torch (CPU and device), NumPy, Python and any found inside
    ``data``; the training mode of each module; every buffer. Forward passes run without gradients,
    outside inference mode and uncompiled, so that hooks fire.

    Args:
        model: The network; evaluated by its modules' flags alone, since ``.eval()`` may run code
            of the user (LoRA layers merge their weights there).
        data: Objects that may hold random generators, such as the dataset.
        batch_norm: ``"batch"`` lets BatchNorm layers use the statistics of each batch.
        device: Whose random generator to keep, besides that of the CPU.

    Raises:
        RuntimeError: If a forward pass changed a parameter in place, which cannot be undone.
    """
    with ExitStack() as guards:
        guards.enter_context(_random_generators_kept(data, device))
        guards.enter_context(_parameters_watched(model))
        guards.enter_context(_buffers_kept(model))
        guards.enter_context(_evaluation_flags(model))
        if batch_norm == "batch":
            guards.enter_context(_batch_statistics(model))
        # tensors made in inference mode could not be kept for later
        guards.enter_context(torch.inference_mode(False))
        guards.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # else nothing can have been compiled
            # hooks registered after a frame was compiled are silently ignored in it
            guards.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def seed_generators(seed: int, number: int) -> None:
    """Seed the global generators for one batch, whichever process reads it."""
    mixed = (seed * 1_000_003 + number) % 2**32
    # not torch.manual_seed, which queues a call (and a stack trace) for devices not yet in use
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(mixed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)


@contextmanager
def generators_rewound(data: Any) -> Iterator[None]:
    """Put the random generators inside ``data`` back to where they were at the start."""
    states = [(generator, _state(generator)) for generator in _held_generators(data)]
    try:
        yield
    finally:
        for generator, state in states:
            _restore(generator, state)


@contextmanager
def _random_generators_kept(data: Any, device: torch.device | None) -> Iterator[None]:
    cpu, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    backend = (
        getattr(torch, device.type, None) if device and device.type in ("cuda", "mps") else None
    )
    on_device = (device,) if device and device.type == "cuda" else ()
    device_state = backend.get_rng_state(*on_device) if backend else None
    try:
        with generators_rewound(data):
            yield
    finally:
        torch.set_rng_state(cpu)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if backend:
            backend.set_rng_state(device_state, *on_device)


@contextmanager
def _evaluation_flags(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    # of each module, for a forward pass may add buffers, or fill those that are None
    held = [(module, dict(module._buffers)) for module in model.modules()]
    tensors = {b for _, buffers in held for b in buffers.values() if b is not None}
    contents = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for module, buffers in held:
            for added in set(module._buffers.keys()) - set(buffers):
                del module._buffers[added]
            for name, buffer in buffers.items():
                module._buffers[name] = buffer
        with torch.no_grad():
            for tensor, content in contents:
                if not torch.equal(tensor, content):
                    tensor.copy_(content)


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """Without running statistics, BatchNorm takes those of the batch and writes none.

    ``training`` stays False: so SyncBatchNorm does not communicate, and Dropout stays off.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.running_mean = layer.running_var = None
    yield  # buffers are put back by `_buffers_kept`


@contextmanager
def _parameters_watched(model: nn.Module) -> Iterator[None]:
    versions = [
        (name, p, p._version) for name, p in model.named_parameters() if not p.is_inference()
    ]
    yield
    changed = [name for name, parameter, version in versions if parameter._version != version]
    if changed:
        raise RuntimeError(
            f"A forward pass in evaluation mode changed the parameters {', '.join(changed[:3])} in "
            "place: training is no longer what it would have been. Such a network cannot be "
            "observed; take the change out of its forward()."
        )


def _held_generators(data: Any) -> list[Any]:
    """Random generators reachable from ``data`` by attributes, containers and functions."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting = deque([(data, 0)])
    kinds = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
    while waiting:
        thing, depth = waiting.popleft()  # the nearest first: depth is that of the shortest way
        if id(thing) in seen or depth > 10:
            continue
        seen.add(id(thing))
        if isinstance(thing, kinds):
            found.append(thing)
        else:
            waiting += [(part, depth + 1) for part in _parts(thing)]
    return found


def _parts(thing: Any) -> Iterable[Any]:
    """Items of small containers, attributes of objects, and what functions carry with them."""
    if isinstance(thing, dict | list | tuple):
        values = thing.values() if isinstance(thing, dict) else thing
        return values if len(thing) < 1000 else ()  # long ones hold samples, not generators
    if isinstance(thing, MethodType):
        return (thing.__self__,)
    if isinstance(thing, partial):
        return thing.func, thing.args, thing.keywords
    if isinstance(thing, FunctionType):
        cells = thing.__closure__ or ()
        return [cell.cell_contents for cell in cells if cell != CellType()]  # empty ones raise
    if hasattr(thing, "__dict__") and not isinstance(thing, type | ModuleType | Tensor):
        return vars(thing).values()
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
