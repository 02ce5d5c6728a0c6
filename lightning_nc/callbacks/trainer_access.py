"""Access to a Trainer's network and data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch.utils.data import DataLoader

from lightning_nc.callbacks.lightning_internals import before_transfer, loaders_of, replicas_of
from lightning_nc.guards.modes import modes_set
from lightning_nc.network.calling import calling
from lightning_nc.network.runner import Runner
from lightning_nc.network.samples import Part
from lightning_nc.passes.probe import Probe

# names of strategies that shard the parameters over the processes
SHARDING = {"FSDPStrategy", "ModelParallelStrategy"}


def shards(trainer: Any) -> bool:
    """Whether the strategy shards the parameters, so that each forward pass communicates."""
    return any(kind.__name__ in SHARDING for kind in type(trainer.strategy).__mro__)


@contextmanager
def stage_of(trainer: Any, source: Any) -> Iterator[None]:
    """Let the Trainer be at the stage to which the data of a source belong.

    Datasets, collate functions and hooks of the transfer augment if ``trainer.training`` is true:
    data of the user's own are read as in validation (or test), those of a loader as in its loop.

    Args:
        trainer: The Trainer.
        source: The source of a probe.
    """
    state, stages = trainer.state, {"train": "train", "val": "validate", "test": "test"}
    before = state.stage
    own = "test" if before.value == "test" else "validate"
    # each namespace has an enumeration of its own
    state.stage = type(before)(stages[source] if isinstance(source, str) else own)
    try:
        yield
    finally:
        state.stage = before


def trainer_runner(
    trainer: Any,
    pl_module: Any,
    probe: Probe,
    in_step: Callable[[], None],
    advance: Callable[[], None],
) -> Runner:
    """Return a runner that passes batches to the module as the Trainer's own loops do.

    Args:
        trainer: The Trainer, at the stage at which it measures.
        pl_module: The network.
        probe: Its source decides in which modes batches are moved: those of training on their way
            from the training loader, else those of evaluation.
        in_step: Called before each forward pass of a sharded network, since that communicates.
        advance: Called after each forward or backward pass through the network.
    """
    prepare = before_transfer(pl_module)
    modes = {m: m.training or not trainer.training for m in pl_module.modules()}

    def move(batch: Any) -> Any:
        with modes_set(modes) if probe.source == "train" else nullcontext():
            batch = prepare(trainer.precision_plugin.convert_input(batch), dataloader_idx=0)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    strategies = {kind.__name__ for kind in type(trainer.strategy).__mro__}
    # FSDPStrategy keeps the parameters in its wrapper; the one of DDP would communicate
    model = trainer.strategy.model if "FSDPStrategy" in strategies else pl_module
    # sharded parameters are gathered when the outermost module is called
    sharded = shards(trainer)
    way = calling(pl_module, probe.forward, model if sharded else None)

    def call(inputs: Any) -> Any:
        if sharded:
            in_step()
        outputs = way.function(inputs)
        advance()
        return outputs

    precision = trainer.precision_plugin.forward_context
    datamodule = getattr(trainer, "datamodule", None)
    device = trainer.strategy.root_device
    return Runner(model, device, move, precision, way, call, datamodule, advance)


def trainer_loader(trainer: Any, source: str) -> Any:
    """Return the loader of the Trainer that a source names, as the user gave it.

    Args:
        trainer: The Trainer.
        source: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ValueError: If there is none, or more than one.
    """
    loaders = loaders_of(trainer, source)
    while _is_of_one(loaders):
        loaders = _only_one(loaders)
    if loaders is None or isinstance(loaders, dict | list | tuple):
        found = "no" if loaders is None else f"{len(loaders)}"
        raise ValueError(
            f'The Trainer has {found} "{source}" loader{"s" if loaders else ""}; say what to '
            'measure: probe=Probe(source=loader_or_dataset, name="my_probe").'
        )
    # Lightning puts the samples in order, except under a batch sampler (batch_size None)
    in_order = isinstance(loaders, DataLoader) and loaders.batch_size is not None
    if source == "train" and trainer.overfit_batches > 0 and in_order:
        return _first_batches(trainer, loaders)
    return loaders


def batch_of_loader(trainer: Any, batch: Any) -> Any:
    """Return the batch of `trainer_loader` in what ``training_step`` gets.

    Lightning gives batches in a collection like that of the loaders.

    Args:
        trainer: The Trainer.
        batch: A batch of training.
    """
    loaders = loaders_of(trainer, "train")
    while _is_of_one(loaders):
        loaders, batch = _only_one(loaders), _only_one(batch)
    return batch


def _is_of_one(loaders: Any) -> bool:
    return isinstance(loaders, dict | list | tuple) and len(loaders) == 1


def _only_one(collection: Any) -> Any:
    (only,) = collection.values() if isinstance(collection, dict) else collection
    return only


def _first_batches(trainer: Any, loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader of what ``overfit_batches`` trains on: the first batches of all processes."""
    _, world = replicas_of(trainer)
    dataset: Any = loader.dataset
    size = min(trainer.num_training_batches * (loader.batch_size or 1) * world, len(dataset))
    return DataLoader(
        Part(dataset, range(size)),
        loader.batch_size,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        pin_memory=loader.pin_memory,
    )
