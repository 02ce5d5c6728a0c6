"""Samples chosen by a seed alone, formed into batches once, and read repeatedly."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pickle import PicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from lightning_nc.guards.generators import held_generators, seed_generators
from lightning_nc.guards.object_state import generators_reached
from lightning_nc.network.samples import Part, Samples


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
    loader = DataLoader(
        reader,
        batch_size=None,  # the reader returns whole batches
        collate_fn=_as_it_is,
        num_workers=num_workers,
        worker_init_fn=partial(_prepare_worker, samples),
        multiprocessing_context=samples.start if num_workers else None,
        pin_memory=samples.pin_memory and torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(reader.seed),
    )
    try:
        read = iter(loader)  # which starts the workers
    except (AttributeError, TypeError, PicklingError) as error:
        if not num_workers:
            raise
        raise ValueError(
            "Workers that are not forked are sent the dataset, the collate function and "
            f"worker_init_fn, of which one cannot be pickled ({error}). Read in this process, "
            "Probe(num_workers=0), or define functions at the top of a module, without lambda."
        ) from error
    return chain(list(islice(read, 1)), read)


def _prepare_worker(samples: Samples, number: int) -> None:
    """Prepare a worker, in which ``get_worker_info().dataset`` is the dataset of the user."""
    dataset = samples.dataset
    shown = dataset.dataset if isinstance(dataset, Part) else dataset
    object.__setattr__(get_worker_info(), "dataset", shown)  # it refuses to be changed
    if samples.worker_init is not None:
        samples.worker_init(number)


def _as_it_is(batch: Any) -> Any:
    return batch
