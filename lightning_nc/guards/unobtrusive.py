"""All guards in one context manager: measuring a network leaves it as it was."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import nn

from lightning_nc.guards.buffers import buffers_kept
from lightning_nc.guards.generators import generators_in_model, generators_kept, held_generators
from lightning_nc.guards.gradient_checkpoints import gradient_checkpoints_off
from lightning_nc.guards.hooks import hooks_kept
from lightning_nc.guards.kernels import fast_path_off
from lightning_nc.guards.modes import modes_set
from lightning_nc.guards.object_state import Memory
from lightning_nc.guards.parameters import bounded_norms_kept, parameters_watched
from lightning_nc.guards.restoring import restoring
from lightning_nc.guards.shards import put_in_shards, shards_kept
from lightning_nc.guards.signals import signals_held
from lightning_nc.guards.torch_internals import is_batch_norm


@contextmanager
def unobtrusive(
    model: nn.Module,
    data: Any = None,
    batch_norm: Literal["eval", "batch"] = "eval",
    user_hooks: bool = True,
    notes: dict[str, str] | None = None,
) -> Iterator[None]:
    """Evaluate a network inside the block and leave no trace, even after an exception.

    The block restores the random generators of torch (CPU and devices), NumPy, Python and any held
    by ``data`` or by modules; the training mode of each module; every buffer and hook; embeddings
    of bounded norm; and what objects of the user remember, as `Memory` says. Forward passes run
    without gradients, outside inference mode, uncompiled, and without the fast path of torch's
    transformers and reentrant gradient checkpoints, so that hooks run and blocks are found. What
    modules log in them is discarded.

    Args:
        model: The network. Only the flags of its modules are set to evaluation, since ``.eval()``
            may run user code (LoRA layers merge their weights there).
        data: Objects that take part, such as the dataset, or a tuple of them.
        batch_norm: ``"batch"`` lets BatchNorm layers use the statistics of each batch.
        user_hooks: Whether the user's forward hooks and forward pre-hooks run in forward passes.
        notes: Gets sentences on what could not be put back, by topic.

    Raises:
        RuntimeError: If a forward pass changes a parameter in place, which cannot be undone, or
            would initialise a lazy one.
        NotRestored: If something else could not be restored; all the rest is.
    """
    put_in_shards(model)
    with ExitStack() as guards:
        once_restored = guards.enter_context(ExitStack())
        held = held_generators(data) + generators_in_model(model)
        # attributes of FSDP's wrappers record what has been set up, and tensors in them may be
        # views of parameters whose full copies are freed now
        modules = [m for m in model.modules() if type(m).__name__ != "FullyShardedDataParallel"]
        whole = len(modules) == len(list(model.modules()))
        memory = Memory(model, modules, data if isinstance(data, tuple | list) else [data], whole)
        guards.enter_context(generators_kept([*held, *memory.generators]))
        guards.enter_context(parameters_watched(model))
        guards.enter_context(bounded_norms_kept(model))
        guards.enter_context(memory.put_back({} if notes is None else notes))
        guards.enter_context(_logging_off(model))
        guards.enter_context(buffers_kept(model))
        guards.enter_context(hooks_kept(model, user_hooks))
        guards.enter_context(_evaluation_flags(model))
        if batch_norm == "batch":
            guards.enter_context(_batch_statistics(model))
        guards.enter_context(shards_kept(model))
        # tensors created in inference mode could not be kept for later
        guards.enter_context(torch.inference_mode(False))
        guards.enter_context(torch.no_grad())
        guards.enter_context(fast_path_off())
        guards.enter_context(gradient_checkpoints_off())
        if "torch._dynamo" in sys.modules:  # otherwise nothing has been compiled
            # a compiled frame silently ignores hooks registered after its compilation
            guards.enter_context(torch.compiler.set_stance("force_eager"))
        # what is entered last is left first: from then on nothing interrupts the guards
        guards.callback(lambda: once_restored.enter_context(signals_held(interrupts=True)))
        yield


def _evaluation_flags(model: nn.Module) -> AbstractContextManager[None]:
    # a frozen ScriptModule has no mode
    return modes_set({m: False for m in model.modules() if hasattr(m, "training")})


@contextmanager
def _logging_off(model: nn.Module) -> Iterator[None]:
    """Disable ``self.log``: a ``forward()`` that calls it would log the probe as training data."""
    with restoring() as later:
        # what is called `log` elsewhere may be part of what a network computes
        for module in (each for each in model.modules() if hasattr(each, "log_dict")):
            for name in ("log", "log_dict"):
                shadowed = vars(module)
                what = f"{name}() of a {type(module).__name__}"
                later(what, _restore_attribute, shadowed, name, shadowed.get(name))
                shadowed[name] = _log_nothing
        yield


def _restore_attribute(attributes: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        attributes[name] = value
    else:
        attributes.pop(name, None)


def _log_nothing(*_args: Any, **_options: Any) -> None:
    """Do nothing, in place of ``self.log`` and ``self.log_dict``."""


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """Remove running statistics, so that BatchNorm uses those of the batch and updates none.

    ``training`` stays False, so SyncBatchNorm does not communicate and Dropout stays off.
    """
    layers: list[Any] = [module for module in model.modules() if is_batch_norm(module)]
    for layer in layers:
        layer.running_mean = layer.running_var = None
    yield  # `buffers_kept` restores the buffers
