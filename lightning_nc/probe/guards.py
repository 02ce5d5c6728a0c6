"""The one place that guards: a network looked at is afterwards the network it was."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from lightning_nc.probe.attributes import attributes_kept
from lightning_nc.probe.generators import generators_in_model, generators_kept, held_generators
from lightning_nc.probe.shards import shards_kept


@contextmanager
def unobtrusive(
    model: nn.Module,
    data: Any = None,
    batch_norm: Literal["eval", "batch"] = "eval",
    device: torch.device | None = None,
) -> Iterator[None]:
    """Evaluate a network inside the block and leave no trace, also after an exception.

    Kept: the random generators of torch (CPU and device), NumPy, Python and any held by ``data``
    or by modules; the training mode of each module; every buffer; plain attributes of modules and
    datasets. Forward passes run without gradients, outside inference mode and uncompiled, so that
    hooks fire; what modules log in them is not logged.

    Args:
        model: The network; evaluated by its modules' flags alone, since ``.eval()`` may run code
            of the user (LoRA layers merge their weights there).
        data: Objects that may hold random generators, such as the dataset.
        batch_norm: ``"batch"`` lets BatchNorm layers use the statistics of each batch.
        device: Whose random generator to keep, besides that of the CPU.

    Raises:
        RuntimeError: If a forward pass changed a parameter in place, which cannot be undone, or
            would be the first to give one its shape.
    """
    with ExitStack() as guards:
        held = held_generators(data) + generators_in_model(model)
        guards.enter_context(generators_kept(held, device))
        guards.enter_context(_parameters_watched(model))
        # attributes of FSDP's wrappers say what has been set up, and tensors within may be views
        # of parameters that are not there now
        modules = [m for m in model.modules() if type(m).__name__ != "FullyShardedDataParallel"]
        whole = len(modules) == len(list(model.modules()))
        guards.enter_context(attributes_kept(modules, contents=whole))
        guards.enter_context(attributes_kept(_datasets(data), contents=False))
        guards.enter_context(_logging_off(model))
        guards.enter_context(_buffers_kept(model))
        guards.enter_context(_evaluation_flags(model))
        if batch_norm == "batch":
            guards.enter_context(_batch_statistics(model))
        guards.enter_context(shards_kept(model))
        # tensors made in inference mode could not be kept for later
        guards.enter_context(torch.inference_mode(False))
        guards.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # else nothing can have been compiled
            # hooks registered after a frame was compiled are silently ignored in it
            guards.enter_context(torch.compiler.set_stance("force_eager"))
        yield


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
    python = [m for m, _ in held if not isinstance(m, torch.jit.ScriptModule)]
    parts = [part for m in python for part in (m._modules, m._parameters)]
    names = [set(part) for part in parts]
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
        for part, before in zip(parts, names, strict=True):
            for added in part.keys() - before:
                del part[added]  # built by a forward pass, and will be again
        with torch.no_grad():
            for tensor, content in contents:
                if not torch.equal(tensor, content):
                    tensor.copy_(content)


def _datasets(data: Any) -> list[Any]:
    """Datasets and transforms among the data, and those within them."""
    found: list[Any] = []
    waiting = [data]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, tuple | list) and len(thing) < 100:
            waiting += thing
        elif hasattr(thing, "__dict__") and not any(thing is other for other in found):
            found.append(thing)
            parts = ("dataset", "datasets", "transform", "target_transform", "transforms")
            waiting += [vars(thing)[part] for part in parts if part in vars(thing)]
    return [thing for thing in found if not isinstance(thing, type | FunctionType | nn.Module)]


@contextmanager
def _logging_off(model: nn.Module) -> Iterator[None]:
    """A ``forward()`` that calls ``self.log`` would log of the probe what is to be of training."""
    loggers = [m for m in model.modules() if hasattr(m, "log") and hasattr(m, "log_dict")]
    shadowed = [(vars(module), name) for module in loggers for name in ("log", "log_dict")]
    before = [(attributes, name, attributes.get(name)) for attributes, name in shadowed]
    try:
        for attributes, name in shadowed:
            attributes[name] = _log_nothing
        yield
    finally:
        for attributes, name, value in before:
            attributes.pop(name)
            if value is not None:
                attributes[name] = value


def _log_nothing(*_args: Any, **_options: Any) -> None:
    """In place of ``self.log`` and ``self.log_dict``."""


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
    parameters = dict(model.named_parameters())
    lazy = [name for name, parameter in parameters.items() if is_lazy(parameter)]
    if lazy:
        raise RuntimeError(
            f"The parameters {', '.join(lazy[:3])} have no shape yet, and measuring would give "
            "them their first values: run a batch through the network before training, or measure "
            "from epochs=[1, ...] on."
        )
    before = {name: (p.data, _checksum(p)) for name, p in parameters.items()}
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            if parameter.data_ptr() != before[name][0].data_ptr():
                parameter.data = before[name][0]  # replaced, as max-norm layers do
    after = {name: _checksum(parameter) for name, parameter in parameters.items()}
    changed = [name for name, number in after.items() if not torch.equal(number, before[name][1])]
    if changed:
        raise RuntimeError(
            f"A forward pass in evaluation mode changed the parameters {', '.join(changed[:3])} in "
            "place: training is no longer what it would have been. Such a network cannot be "
            "observed; take the change out of its forward()."
        )


def _checksum(parameter: Tensor) -> Tensor:
    """A number that changes with any bit: versions miss what is done through ``.data``."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    content = parameter.detach()
    content = content.to_local() if hasattr(content, "to_local") else content  # of a sharded one
    if content.is_complex():
        content = torch.view_as_real(content)
    return content.view(integers[content.element_size()]).sum(dtype=torch.int64)
