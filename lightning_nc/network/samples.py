"""What a user gives as data, as samples that can be read again in any order."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    default_collate,
)


class Samples(NamedTuple):
    """A map-style dataset and how its samples are formed into batches.

    Attributes:
        dataset: The dataset.
        batch_size: Samples per batch.
        collate: Makes a batch of a list of samples.
        worker_init: Prepares a worker process, given its number.
        pin_memory: Whether batches are copied to pinned memory.
        by_workers: Whether the loader has workers that a function of the user prepares.
        start: How worker processes are started; None for the usual way.
    """

    dataset: Any
    batch_size: int
    collate: Callable[[list[Any]], Any]
    worker_init: Callable[[int], None] | None
    pin_memory: bool
    by_workers: bool = False
    start: Any = None


class Part(Subset[Any]):
    """The samples to which a loader is limited; its workers are shown the whole dataset."""


class ReadAtOnce(Part):
    """Samples of a dataset that takes a list of indices, and returns a batch."""

    def __getitems__(self, indices: list[int]) -> Any:
        return self.dataset[[self.indices[index] for index in indices]]


def samples_of(source: Any, batch_size: int | None) -> Samples:
    """Read a Dataset, a DataLoader or a function returning one as a map-style dataset.

    A loader's dataset, batch size, collate function, worker initialisation and memory pinning are
    used, and the indices of a `SubsetRandomSampler`. Other samplers, generators and iterators
    belong to training and are not used. Whole batches are read where a `BatchSampler` gives the
    indices of each to the dataset. Loaders that Fabric or Accelerate has prepared are read
    whole, whatever share of them a process trains on.

    Args:
        source: A Dataset, a DataLoader, or a function without arguments that returns one.
        batch_size: Samples per batch; None for the loader's own, or 100.

    Raises:
        TypeError: If the source is none of these, is an ``IterableDataset``, or reads whole
            batches.
    """
    if not isinstance(source, Dataset | DataLoader) and callable(source):
        source = source()
    if type(source).__name__ == "_FabricDataLoader":
        source = getattr(source, "_dataloader", source)
    dataset: Any = source.dataset if isinstance(source, DataLoader) else source
    if isinstance(dataset, IterableDataset) or not (
        hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    ):
        raise TypeError(
            f"{type(dataset).__name__} cannot be read again in the same order, which a measurement "
            "needs. Use a map-style dataset (with __getitem__ and __len__), such as a list of "
            "samples, instead: "
            'probe=Probe(source=dataset, name="my_probe").'
        )
    if not isinstance(source, DataLoader):
        return Samples(dataset, batch_size or 100, default_collate, None, False)
    batches = _outermost_sampler(source)
    at_once = source.batch_sampler is None and isinstance(batches, BatchSampler)
    if source.batch_sampler is None and not at_once:
        raise TypeError(
            "A DataLoader with batch_size=None reads whole batches, from which single samples "
            "cannot be chosen. Use a dataset of single samples: "
            'probe=Probe(source=dataset, name="my_probe", batch_size=...).'
        )
    own_size = source.batch_size or getattr(batches, "batch_size", None)
    size = batch_size or own_size or 100
    chosen = _subset_of(_sampler_of(source))
    if at_once:
        dataset = ReadAtOnce(dataset, range(len(dataset)) if chosen is None else list(chosen))
    elif chosen is not None:
        dataset = Part(dataset, list(chosen))
    init, start = source.worker_init_fn, source.multiprocessing_context
    by_workers = source.num_workers > 0 and init is not None and not _is_lightnings(init)
    return Samples(dataset, size, source.collate_fn, init, source.pin_memory, by_workers, start)


def _is_lightnings(init: Any) -> bool:
    """Whether a function that prepares workers is the one of Lightning, which seeds them."""
    return getattr(init, "func", init).__module__.startswith(("lightning", "pytorch_lightning"))


def inner_sampler(sampler: Any) -> Any:
    """Return the sampler that was given to a loader, even if a wrapper distributes it.

    Lightning wraps samplers, and so do programs, whose wrappers have it as their ``sampler``.
    Without Lightning's private names, the wrapper is returned.
    """
    own = getattr(sampler, "sampler", sampler)
    return getattr(getattr(own, "dataset", None), "_sampler", own)


def _outermost_sampler(loader: DataLoader[Any]) -> Any:
    """Return what a loader takes indices from: of batches, unless it has none."""
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


def _sampler_of(loader: DataLoader[Any]) -> Any:
    """Return the sampler that was given to a loader, also within batch samplers (Accelerate's)."""
    sampler = _outermost_sampler(loader)
    while hasattr(sampler, "batch_sampler"):
        sampler = sampler.batch_sampler
    return getattr(sampler, "sampler", loader.sampler)


def _subset_of(sampler: Any) -> Any:
    """Return the indices that a sampler is limited to; None if it is not limited."""
    inner = inner_sampler(sampler)
    return inner.indices if isinstance(inner, SubsetRandomSampler) else None
