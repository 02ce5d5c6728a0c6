"""Samples of a dataset, chosen by a seed alone, formed into batches once, and read repeatedly."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    default_collate,
    get_worker_info,
)

from lightning_nc.guards.generators import held_generators, seed_generators
from lightning_nc.guards.object_state import generators_reached


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


class ProbeBatch(NamedTuple):
    """One batch of the probe.

    Attributes:
        number: Its position among the batches.
        indices: Indices in the dataset.
        labels: The label of each sample if known, shape ``(n,)``.
        items: If positions are samples: the sequence or image of each within the batch, ``(n,)``.
        ranks: The rank of each there, among the positions that are not ignored, ``(n,)``.
    """

    number: int
    indices: list[int]
    labels: Tensor | None
    items: Tensor | None = None
    ranks: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of samples n."""
        return len(self.indices) if self.labels is None else len(self.labels)

    def index_of(self, sample: int) -> int:
        """Index in the dataset of a sample, or of the sequence or image that it is part of."""
        return self.indices[sample if self.items is None else int(self.items[sample])]


def samples_of(source: Any, batch_size: int | None) -> Samples:
    """Read a Dataset, a DataLoader or a function returning one as a map-style dataset.

    A loader's dataset, batch size, collate function, worker initialisation and memory pinning are
    used, and the indices of a `SubsetRandomSampler`. Other samplers, generators and iterators
    belong to training and are not used. Loaders that Fabric or Accelerate has prepared are read
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
    if source.batch_sampler is None:
        raise TypeError(
            "A DataLoader with batch_size=None reads whole batches, from which single samples "
            "cannot be chosen. Use a dataset of single samples: "
            'probe=Probe(source=dataset, name="my_probe", batch_size=...).'
        )
    own_size = source.batch_size or getattr(source.batch_sampler, "batch_size", None)
    size = batch_size or own_size or 100
    chosen = _subset_of(_sampler_of(source))
    dataset = dataset if chosen is None else Part(dataset, list(chosen))
    init, start = source.worker_init_fn, source.multiprocessing_context
    by_workers = source.num_workers > 0 and init is not None and not _is_lightnings(init)
    return Samples(dataset, size, source.collate_fn, init, source.pin_memory, by_workers, start)


def _is_lightnings(init: Any) -> bool:
    """Whether a function that prepares workers is the one of Lightning, which seeds them."""
    return getattr(init, "func", init).__module__.startswith(("lightning", "pytorch_lightning"))


def inner_sampler(sampler: Any) -> Any:
    """Return the sampler that was given to a loader, even if Lightning has wrapped it.

    Lightning wraps samplers to distribute them. Without the private names that lead to the inner
    sampler, the wrapper is returned.
    """
    return getattr(getattr(sampler, "dataset", None), "_sampler", sampler)


def _sampler_of(loader: DataLoader[Any]) -> Any:
    """Return the sampler that was given to a loader, also within batch samplers (Accelerate's)."""
    sampler: Any = loader.batch_sampler
    while hasattr(sampler, "batch_sampler"):
        sampler = sampler.batch_sampler
    return getattr(sampler, "sampler", loader.sampler)


def _subset_of(sampler: Any) -> Any:
    """Return the indices that a sampler is limited to; None if it is not limited."""
    inner = inner_sampler(sampler)
    return inner.indices if isinstance(inner, SubsetRandomSampler) else None


def seeded_order(size: int, seed: int) -> Tensor:
    """Return the order in which to read a source.

    Args:
        size: The number of samples in the source.
        seed: Seed of the order.

    Returns:
        A permutation of the indices, shape ``(size,)``.
    """
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def stratified(labels: Tensor, samples_per_class: int | None, seed: int) -> Tensor:
    """Choose the first samples of each class among candidates, then shuffle the choice.

    Args:
        labels: Labels of the candidates, in seeded order, shape ``(M,)``.
        samples_per_class: Samples to choose from each class; None for all.
        seed: Seed of the shuffle.

    Returns:
        Positions of the N chosen samples among the candidates, shape ``(N,)``.
    """
    by_class = labels.argsort(stable=True)
    groups = torch.split(by_class, labels.bincount().tolist())
    chosen = torch.cat([group[:samples_per_class] for group in groups])
    return chosen[seeded_order(len(chosen), seed)]


def form_batches(indices: Tensor, labels: Tensor, batch_size: int) -> list[ProbeBatch]:
    """Cut the probe into batches of nearly equal size.

    No measured value depends on which process reads which batch.

    Args:
        indices: Indices of the samples, shape ``(N,)``.
        labels: Labels of the samples, shape ``(N,)``.
        batch_size: Largest number of samples in a batch.
    """
    parts = math.ceil(len(indices) / batch_size)
    cut = zip(indices.tensor_split(parts), labels.tensor_split(parts), strict=True)
    return [ProbeBatch(number, part.tolist(), of) for number, (part, of) in enumerate(cut)]


class _BatchReader(Dataset[Any]):
    """A dataset of whole batches, each read with random generators seeded by its own number."""

    def __init__(self, samples: Samples, batches: Sequence[ProbeBatch], seed: int) -> None:
        self.samples, self.batches, self.seed = samples, batches, seed
        parts = samples.dataset, samples.collate
        self.held = held_generators(parts) + generators_reached(parts)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        number, indices = self.batches[position][:2]
        seed_generators(self.seed, number, self.held)
        dataset = self.samples.dataset
        if callable(getattr(dataset, "__getitems__", None)):
            return position, self.samples.collate(dataset.__getitems__(indices))
        return position, self.samples.collate([dataset[index] for index in indices])


def read_batches(
    samples: Samples, batches: Sequence[ProbeBatch], seed: int, num_workers: int = 0
) -> Iterator[tuple[ProbeBatch, Any]]:
    """Read batches one after another, with a separate loader and generator.

    Where no workers are asked for, this process reads. If it cannot, and the loader of the samples
    has workers that a function of the user prepares, a worker reads: it may open files (HDF5, LMDB)
    that are not open here. That function is not called in this process, since it may set what
    belongs to the process, such as signals, the number of threads, or the cores to run on. Most
    only seed, so that a worker for every reading would cost 0.1 to 0.2 s for nothing, and seconds
    where processes are spawned. Values do not depend on who reads.

    Args:
        samples: The dataset and how to form batches.
        batches: The batches to read.
        seed: Seed of the probe.
        num_workers: Number of worker processes that read.

    Yields:
        Each batch of the probe, and what the dataset and the collate function return for it.
    """
    reader = _BatchReader(samples, batches, seed)
    try:
        read = _begun(reader, num_workers)
    except Exception as here:
        if num_workers or not samples.by_workers:
            raise
        try:
            read = _begun(reader, 1)
        except type(here):  # the same cause, which is told in fewer words without workers
            raise here from None
    for position, batch in read:
        yield batches[position], batch


def _begun(reader: _BatchReader, num_workers: int) -> Iterator[tuple[int, Any]]:
    """Read a first batch, and return all with their positions."""
    samples = reader.samples
    loader = iter(
        DataLoader(
            reader,
            batch_size=None,  # the reader returns whole batches
            collate_fn=_as_it_is,
            num_workers=num_workers,
            worker_init_fn=partial(_prepare_worker, samples),
            multiprocessing_context=samples.start if num_workers else None,
            pin_memory=samples.pin_memory and torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(reader.seed),
        )
    )
    return chain(list(islice(loader, 1)), loader)


def _prepare_worker(samples: Samples, number: int) -> None:
    """Prepare a worker, in which ``get_worker_info().dataset`` is the dataset of the user."""
    dataset = samples.dataset
    shown = dataset.dataset if isinstance(dataset, Part) else dataset
    object.__setattr__(get_worker_info(), "dataset", shown)  # it refuses to be changed
    if samples.worker_init is not None:
        samples.worker_init(number)


def _as_it_is(batch: Any) -> Any:
    return batch
