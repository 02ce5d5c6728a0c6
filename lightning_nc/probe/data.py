"""Which samples are measured: fixed indices from a seed alone, dealt in whole batches."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from lightning_nc.probe.generators import held_generators, seed_generators

_TRAINER_SOURCES = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Probe:
    """The samples on which a network is measured, and how.

    Which samples these are depends on ``seed`` alone: they are the same at every measurement, in
    every run, on any number of processes. They are drawn class by class (a stratified probe
    measures the class-balanced problem; D depends on the number of samples per class) and read in
    batches that are formed once and dealt whole.

    Args:
        source: The Trainer's loader to draw from (``"train"``, ``"val"``, or ``"test"``, which is
            measured by ``trainer.test()`` alone), or a ``Dataset``, a ``DataLoader``, or a function
            that returns one.
        name: How the probe is called in logged keys; wanted unless ``source`` is a string.
        samples_per_class: How many samples of each class to draw; None takes the whole source.
        unpack: ``unpack(batch) -> (inputs, labels)``; inputs are a tensor, or a dict or tuple that
            is passed on as keyword or positional arguments. By default a pair is taken as it is,
            and a dict is split at its key ``labels``, ``label``, ``targets``, ``target`` or ``y``.
        batch_norm: ``"eval"`` measures with running statistics, ``"batch"`` with those of each
            probe batch, as the papers on the law of equi-separation do.
        cache_mb: Features up to this size are kept for the second pass over them; above it, the
            network runs twice.
        memory_mb: Bound on the accumulators, 8 K d bytes each for several per layer. Layers that
            do not fit together are measured in turn; one that does not fit alone is refused.
        seed: Decides which samples are drawn, how they are batched, and every random number that
            data and network draw while they are measured.
        batch_size: Samples per batch; by default that of the source.
        num_workers: Worker processes that read the probe.
        wait_seconds: How long a process waits for the others to come to a measurement; then it is
            skipped on all of them. After each measurement missed, the next is waited for half as
            long.

    Raises:
        ValueError: If an argument is out of range, or a source of your own has no name.
    """

    source: Any = "train"
    name: str | None = None
    samples_per_class: int | None = 100
    unpack: Callable[[Any], tuple[Any, Tensor]] | None = None
    batch_norm: Literal["eval", "batch"] = "eval"
    cache_mb: float = 512
    memory_mb: float = 4096
    seed: int = 0
    batch_size: int | None = None
    num_workers: int = 0
    wait_seconds: float = 60

    def __post_init__(self) -> None:
        """Refuse what could not be measured later."""
        if isinstance(self.source, str) and self.source not in _TRAINER_SOURCES:
            raise ValueError(
                f"Probe source {self.source!r} is none of {', '.join(_TRAINER_SOURCES)}; give one "
                "of these, or a Dataset, a DataLoader or a function that returns one."
            )
        if not isinstance(self.source, str) and not self.name:
            raise ValueError(
                f"A probe on {type(self.source).__name__} needs a name for the logged keys: "
                'Probe(source=..., name="my_probe").'
            )
        if self.batch_norm not in ("eval", "batch"):
            raise ValueError(f'batch_norm must be "eval" or "batch", got {self.batch_norm!r}.')
        for field in ("samples_per_class", "batch_size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"Probe needs {field} of 1 or more, got {value}.")
        if not self.wait_seconds >= 0:
            raise ValueError(f"Probe needs wait_seconds of 0 or more, got {self.wait_seconds}.")

    def __eq__(self, other: object) -> bool:
        """Whether both read the same object in the same way; what is in it is not compared."""
        if not isinstance(other, Probe):
            return False
        values = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        plain = (str, int, float)
        return all(a is b or (isinstance(a, plain) and a == b) for a, b in values)

    def __hash__(self) -> int:
        """Equal probes have equal hashes."""
        return hash((self.key, self.seed))

    @property
    def key(self) -> str:
        """The probe's name in logged keys."""
        return self.name or str(self.source)


class Samples(NamedTuple):
    """A map-style dataset and how its samples become batches."""

    dataset: Any
    batch_size: int
    collate: Callable[[list[Any]], Any]
    worker_init: Callable[[int], None] | None
    pin_memory: bool


class ProbeBatch(NamedTuple):
    """One batch of the probe: its place among the batches, its indices and their known labels."""

    number: int
    indices: list[int]
    labels: Tensor | None


def samples_of(source: Any, batch_size: int | None) -> Samples:
    """Read a Dataset, a DataLoader or a function returning one as a map-style dataset.

    Of a loader, the dataset, batch size and collate function are used, and the indices of a
    `SubsetRandomSampler`: other samplers, generators and iterators belong to the training.

    Raises:
        TypeError: If the source is none of these, an ``IterableDataset``, or reads whole batches.
    """
    if not isinstance(source, Dataset | DataLoader) and callable(source):
        source = source()
    dataset: Any = source.dataset if isinstance(source, DataLoader) else source
    if isinstance(dataset, IterableDataset) or not (
        hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    ):
        raise TypeError(
            f"{type(dataset).__name__} cannot be read again in the same order, which a measurement "
            "needs. Give a map-style dataset (with __getitem__ and __len__) of your own: "
            'probe=Probe(source=dataset, name="my_probe").'
        )
    if not isinstance(source, DataLoader):
        return Samples(dataset, batch_size or 100, default_collate, None, False)
    if source.batch_sampler is None:
        raise TypeError(
            "A DataLoader with batch_size=None reads whole batches, of which no samples can be "
            "chosen. Give the single samples: "
            'probe=Probe(source=dataset, name="my_probe", batch_size=...).'
        )
    own_size = source.batch_size or getattr(source.batch_sampler, "batch_size", None)
    size = batch_size or own_size or 100
    chosen = _subset_of(source.sampler)
    dataset = dataset if chosen is None else Subset(dataset, list(chosen))
    return Samples(dataset, size, source.collate_fn, source.worker_init_fn, source.pin_memory)


def _subset_of(sampler: Any) -> Any:
    """The indices to which a sampler is limited, also one that Lightning has wrapped; or None."""
    inner = getattr(getattr(sampler, "dataset", None), "_sampler", sampler)
    return inner.indices if isinstance(inner, SubsetRandomSampler) else None


def seeded_order(size: int, seed: int) -> Tensor:
    """The order in which a source of this size is looked through."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def stratified(labels: Tensor, samples_per_class: int | None, seed: int) -> Tensor:
    """Choose the first samples of each class among candidates, then shuffle the choice.

    Args:
        labels: Labels of the candidates, in seeded order, shape ``(M,)``.
        samples_per_class: How many of each class; None for all.
        seed: Of the shuffle.

    Returns:
        Positions among the candidates.
    """
    by_class = labels.argsort(stable=True)
    groups = torch.split(by_class, labels.bincount().tolist())
    chosen = torch.cat([group[:samples_per_class] for group in groups])
    return chosen[seeded_order(len(chosen), seed)]


def form_batches(indices: Tensor, labels: Tensor, batch_size: int) -> list[ProbeBatch]:
    """Cut the probe into batches of nearly equal size; no value depends on how they are dealt."""
    parts = math.ceil(len(indices) / batch_size)
    cut = zip(indices.tensor_split(parts), labels.tensor_split(parts), strict=True)
    return [ProbeBatch(number, part.tolist(), of) for number, (part, of) in enumerate(cut)]


class _BatchReader(Dataset[Any]):
    """Reads whole batches, each with the random numbers that its own number seeds."""

    def __init__(self, samples: Samples, batches: Sequence[ProbeBatch], seed: int) -> None:
        self.samples, self.batches, self.seed = samples, batches, seed
        self.held = held_generators((samples.dataset, samples.collate))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        number, indices, _ = self.batches[position]
        seed_generators(self.seed, number, self.held)
        dataset = self.samples.dataset
        if callable(getattr(dataset, "__getitems__", None)):
            return position, self.samples.collate(dataset.__getitems__(indices))
        return position, self.samples.collate([dataset[index] for index in indices])


def read_batches(
    samples: Samples, batches: Sequence[ProbeBatch], seed: int, num_workers: int = 0
) -> Iterator[tuple[ProbeBatch, Any]]:
    """Read batches one after another, with a loader and a generator of our own."""
    loader = DataLoader(
        _BatchReader(samples, batches, seed),
        batch_size=None,  # the reader returns whole batches
        collate_fn=_as_it_is,
        num_workers=num_workers,
        worker_init_fn=samples.worker_init,
        pin_memory=samples.pin_memory and torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
    )
    for position, batch in loader:
        yield batches[position], batch


def _as_it_is(batch: Any) -> Any:
    return batch
