"""How a batch reaches the network: under a Trainer as Lightning brings it there, else by device."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import nn
from torch.utils.data import DataLoader, Subset

from lightning_nc.probe.generators import generators_in_model, held_generators
from lightning_nc.probe.hooks import call_model

# names of strategies whose processes have parts of the parameters each
SHARDING = {"FSDPStrategy", "ModelParallelStrategy"}


def _tell_nobody() -> None:
    """Where no progress is shown."""


class Runner(NamedTuple):
    """A network and the way to it.

    Attributes:
        model: The module without wrappers that only training needs.
        device: Where it runs.
        move: Brings a batch to the device.
        precision: Context of a forward pass.
        call: Calls the network with inputs.
        around: What else takes part in moving batches: a datamodule.
        advance: To be called after each pass through the network that is not made by ``call``.
    """

    model: nn.Module
    device: torch.device
    move: Callable[[Any], Any]
    precision: Callable[[], AbstractContextManager[Any]]
    call: Callable[[Any], Any]
    around: Any = None
    advance: Callable[[], None] = _tell_nobody

    def generators(self) -> list[Any]:
        """Random generators that the network, or what is around it, may draw from."""
        return generators_in_model(self.model) + held_generators(self.around, deepest=3)


def trainer_runner(trainer: Any, pl_module: Any, in_step: Callable[[], None]) -> Runner:
    """Bring batches to the module as the Trainer's own loops do.

    Args:
        trainer: The Trainer.
        pl_module: The network.
        in_step: Called before each forward pass of a sharded network, which communicates.
    """

    def move(batch: Any) -> Any:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    strategies = {kind.__name__ for kind in type(trainer.strategy).__mro__}
    # an FSDPStrategy keeps parameters in its wrapper; that of DDP would communicate
    model = trainer.strategy.model if "FSDPStrategy" in strategies else pl_module

    def call(inputs: Any) -> Any:
        if strategies & SHARDING:
            in_step()
        return call_model(model, inputs)

    precision = trainer.precision_plugin.forward_context
    datamodule = getattr(trainer, "datamodule", None)
    return Runner(model, trainer.strategy.root_device, move, precision, call, datamodule)


def plain_runner(model: nn.Module) -> Runner:
    """Bring batches to the device of the network's first parameter."""
    device = next(model.parameters(), torch.empty(0)).device
    move = partial(move_data_to_device, device=device)
    return Runner(model, device, move, nullcontext, partial(call_model, model))


def trainer_loader(trainer: Any, source: str) -> Any:
    """The loader of the Trainer that a source names, as the user gave it.

    Raises:
        ValueError: If there is none, or more than one.
    """
    stage = str(trainer.state.fn.value) if trainer.state.fn is not None else "fit"
    if source == "train":
        loop = trainer.fit_loop
    elif source == "val":
        loop = (
            trainer.validate_loop if stage == "validate" else trainer.fit_loop.epoch_loop.val_loop
        )
    else:
        loop = trainer.test_loop
    if loop._combined_loader is not None:
        loaders = loop._combined_loader.iterables
    elif loop._data_source.is_defined():
        loaders = loop._data_source.dataloader()
        loaders = getattr(loaders, "iterables", loaders)  # of a CombinedLoader
    else:
        loaders = None
    if isinstance(loaders, dict | list | tuple) and len(loaders) == 1:
        (loaders,) = loaders.values() if isinstance(loaders, dict) else loaders
    if loaders is None or isinstance(loaders, dict | list | tuple):
        found = "no" if loaders is None else f"{len(loaders)}"
        raise ValueError(
            f'The Trainer has {found} "{source}" loader{"s" if loaders else ""}; say what to '
            'measure: probe=Probe(source=loader_or_dataset, name="my_probe").'
        )
    # Lightning puts the samples in order, but for a batch sampler of the user (batch_size None)
    in_order = isinstance(loaders, DataLoader) and loaders.batch_size is not None
    if source == "train" and trainer.overfit_batches > 0 and in_order:
        return _first_batches(trainer, loaders)
    return loaders


def _first_batches(trainer: Any, loader: DataLoader[Any]) -> DataLoader[Any]:
    """What ``overfit_batches`` trains on: the first batches in order, of all processes."""
    world = (trainer.distributed_sampler_kwargs or {"num_replicas": 1})["num_replicas"]
    dataset: Any = loader.dataset
    size = min(trainer.num_training_batches * (loader.batch_size or 1) * world, len(dataset))
    return DataLoader(
        Subset(dataset, range(size)),
        loader.batch_size,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        pin_memory=loader.pin_memory,
    )
