"""Class counts of the training samples, taken from the batches, whatever the sampler does."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    default_collate,
)

from lightning_nc.callbacks.trainer_access import batch_of_loader, trainer_loader
from lightning_nc.guards.generators import generators_kept
from lightning_nc.guards.signals import signals_held
from lightning_nc.network.labels import class_indices, counts_with, dataset_labels, label_tensor
from lightning_nc.network.positions import IGNORED
from lightning_nc.network.samples import inner_sampler, samples_of
from lightning_nc.network.unpacking import unpack_batch
from lightning_nc.wording import first_sentence

_IN_ORDER = (SequentialSampler, SubsetRandomSampler, DistributedSampler)
_STASHED = 64  # batches whose labels are collected before counting, which waits for the device


class TrainingCounts:
    """Class counts of the last complete training epoch, on this process.

    Before an epoch is complete, the counts are those that the dataset declares, if each sample is
    drawn once.

    Args:
        unpack: Splits a training batch into inputs and labels; by default as a `Probe` does.
        ignore_index: The label of positions that are none.

    Attributes:
        complete: Samples per class; None if unknown.
        declared: Whether ``complete`` was declared: it covers all processes, and may be of other
            data than the batches.
        of_all_processes: Samples per class over all processes, as last added up; None if unknown.
        counting: Whether training has begun.
        at_random: Whether samples are drawn with replacement, so that counts differ by chance.
        lost: Why the batches of the last epoch could not be counted; empty if they could.
        rank: The number of this process.
    """

    def __init__(
        self, unpack: Callable[[Any], tuple[Any, Any]] | None = None, ignore_index: int = IGNORED
    ) -> None:
        self.unpack, self.ignore_index = unpack, ignore_index
        self.complete: Tensor | None = None
        self.declared = False
        self.of_all_processes: Tensor | None = None
        self.counting, self.at_random, self.lost, self.rank = False, False, "", 0
        self._trouble = ""
        self._whole = False  # whether the epoch was seen from its first batch on
        self._current = torch.zeros(0, dtype=torch.long)
        self._stash: list[Tensor] = []

    @signals_held()  # here and below: what their handlers raise is no trouble with labels
    def declare(self, trainer: Any) -> None:
        """Begin training with the counts the dataset declares, unless better ones are known."""
        asked, self.counting = self.counting, True
        if asked:
            return
        try:
            with generators_kept():
                loader = trainer_loader(trainer, "train")
                self.at_random = _draws_at_random(loader)
                if self.complete is not None or self.unpack is not None:
                    return  # better counts are known, or `unpack` may renumber classes
                labels = dataset_labels(samples_of(loader, None).dataset)
            if labels is not None and _draws_each_once(loader):
                self.set_declared(labels.bincount())
        except Exception:
            return  # no such data, or not countable; the batches will be counted

    def set_declared(self, counts: Tensor) -> None:
        """Set the counts over all processes that a dataset or a checkpoint declares, ``(K,)``."""
        self.complete, self.declared = counts.cpu().long(), True

    def begin_epoch(self) -> None:
        """Start counting from zero."""
        self._current = torch.zeros(0, dtype=torch.long)
        self._stash.clear()
        self._trouble, self._whole = "", True

    @signals_held()
    def see(self, trainer: Any, batch: Any) -> None:
        """Collect the labels of a training batch."""
        if self._trouble:
            return
        try:
            batch = batch_of_loader(trainer, batch)
            if self.unpack is None:
                _, labels = unpack_batch(batch)
            else:
                # the user's code may draw random numbers or change its batch
                with generators_kept():
                    _, labels = self.unpack(copy.deepcopy(batch))
            labels = label_tensor(labels)
            several = labels.ndim > 1 and labels[0].numel() > 1
            if several and labels.is_floating_point():
                raise ValueError(f"labels of shape {tuple(labels.shape)} are not class indices")
            labels = labels.flatten() if several else labels  # those of positions
            self._stash.append(labels.detach().clone())
            if len(self._stash) >= _STASHED:
                self._count()
        except Exception as error:
            self._trouble = f"{type(error).__name__}: {error}"

    @signals_held()
    def end_epoch(self) -> None:
        """Complete the counts of an epoch."""
        try:
            self._count()
        except Exception as error:
            self._trouble = f"{type(error).__name__}: {error}"
        self.lost = first_sentence(self._trouble)  # whose advice is for the probe
        if self.lost:
            self.complete = None
        elif len(self._current) and self._whole:
            self.complete, self.declared = self._current, False
        self._whole = False

    def take_total(self, n: Tensor | None) -> None:
        """Store the counts over all processes, shape ``(K,)``; None if unknown."""
        self.of_all_processes = n

    def tally(self, K: int) -> Tensor:
        """Return this process's share of the counts, shape ``(K,)``.

        Zeros if it has no counts to add. NaN if its batches could not be counted, which makes the
        sum over all processes NaN.

        Raises:
            ValueError: If training has labels beyond the K classes.
        """
        if self.lost:
            return torch.full((K,), torch.nan)
        counts = self.complete
        if counts is None or (self.declared and (self.rank != 0 or len(counts) > K)):
            return torch.zeros(K, dtype=torch.long)
        if len(counts) > K:
            raise ValueError(
                f"Label {len(counts) - 1} of the training batches is out of range for {K} "
                "classes. Renumber the labels, or give class_counts=[...]."
            )
        return torch.nn.functional.pad(counts, (0, K - len(counts)))

    def _count(self) -> None:
        if self._stash:
            labels = torch.cat([each.flatten() for each in self._stash])
            labels = class_indices(labels[labels != self.ignore_index])
            self._current = counts_with(self._current, labels)
            self._stash.clear()


def _draws_at_random(loader: Any) -> bool:
    """Whether a sample may be drawn several times: by weights, or as often as chance has it."""
    sampler = inner_sampler(getattr(loader, "sampler", None))
    return hasattr(sampler, "weights") or bool(getattr(sampler, "replacement", False))


def expected_counts(loader: Any, labels: Tensor) -> Tensor:
    """Return samples per class that an epoch is expected to draw, up to a factor, shape ``(K,)``.

    Args:
        loader: A loader or dataset; each sample counts once, unless a sampler has weights.
        labels: The labels of all samples of the dataset, shape ``(N,)``.
    """
    weights = getattr(inner_sampler(getattr(loader, "sampler", None)), "weights", None)
    known = isinstance(weights, Tensor) and len(weights) == len(labels)
    return labels.bincount(weights if known else None)


def _draws_each_once(loader: Any) -> bool:
    """Whether an epoch draws every sample of the dataset once, except for a dropped last batch."""
    if not isinstance(loader, DataLoader) or loader.batch_size is None:
        return False
    sampler = inner_sampler(loader.sampler)
    draws = type(sampler).__iter__  # of a subclass, it may draw otherwise
    once = (
        draws is RandomSampler.__iter__
        and not sampler.replacement
        and sampler.num_samples == len(sampler.data_source)
    )
    in_order = draws in [each.__iter__ for each in _IN_ORDER]
    # a custom collate function may renumber classes
    return (once or in_order) and loader.collate_fn is default_collate
