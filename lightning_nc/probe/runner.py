"""How a batch reaches the network: under a Trainer as Lightning brings it there, else by device."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import nn


class Runner(NamedTuple):
    """A network and the way to it.

    Attributes:
        model: The inner module; wrappers such as DDP would communicate.
        device: Where it runs.
        move: Brings a batch to the device.
        precision: Context of a forward pass.
    """

    model: nn.Module
    device: torch.device
    move: Callable[[Any], Any]
    precision: Callable[[], AbstractContextManager[Any]]


def trainer_runner(trainer: Any, pl_module: Any) -> Runner:
    """Bring batches to the module as the Trainer's own loops do."""

    def move(batch: Any) -> Any:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    return Runner(
        pl_module, trainer.strategy.root_device, move, trainer.precision_plugin.forward_context
    )


def plain_runner(model: nn.Module) -> Runner:
    """Bring batches to the device of the network's first parameter."""
    device = next(model.parameters(), torch.empty(0)).device
    return Runner(model, device, partial(move_data_to_device, device=device), nullcontext)


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
    return loaders
