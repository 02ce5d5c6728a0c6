"""Features of the first sweep, kept for the second: on the device, or on the host."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from lightning_nc.network.points import Point
from lightning_nc.passes.sweeps import TakeBatch

_REPLAYED = 1024  # samples replayed at a time, so that (K, n) matrices stay small


class FeatureCache:
    """Features of a sweep, kept unchanged for the second sweep, so that the network runs once.

    Where they are kept, each process decides for itself: it changes no bit of what is replayed.

    Args:
        widths: Feature dimension of each point.
        size: Number of samples in this process's batches.
        on_host: Whether to keep the features of a card in pinned memory of the host.
    """

    def __init__(self, widths: Mapping[Point, int], size: int, on_host: bool = False) -> None:
        self.widths, self.size, self.on_host = widths, size, on_host
        self._features: dict[Point, Tensor] = {}
        self._filled = dict.fromkeys(widths, 0)
        self._labels: dict[Point, Tensor] = {}

    def keep(self, point: Point, features: Tensor, labels: Tensor) -> None:
        """Store a copy of a batch, which the network cannot change later."""
        if point not in self._features:
            self._features[point] = self._room(self.widths[point], features)
            self._labels[point] = labels.new_empty(self.size)
        start = self._filled[point]
        self._filled[point] = start + len(features)
        part = slice(start, self._filled[point])
        # in the order of the device's work
        self._features[point][part].copy_(features, non_blocking=True)
        self._labels[point][part] = labels

    def replay(
        self,
        points: Sequence[Point],
        consume: TakeBatch,
        failures: dict[Point | str, Exception],
    ) -> None:
        """Hand on what was kept, point by point, some samples at a time, where its labels are.

        Args:
            points: The points to hand on.
            consume: As in `sweep`.
            failures: What went wrong, by point; points that failed are left out.
        """
        for point in points:
            if point in failures or point not in self._features:
                continue
            features, labels = self._features[point], self._labels[point]
            filled = self._filled[point]
            try:
                for start in range(0, filled, _REPLAYED):
                    part = slice(start, min(start + _REPLAYED, filled))
                    h = features[part].to(labels.device, non_blocking=True)
                    consume(point, h, labels[part])
            except Exception as error:
                failures[point] = error

    def _room(self, width: int, like: Tensor) -> Tensor:
        on_host = self.on_host and like.is_cuda
        device = torch.device("cpu") if on_host else like.device
        shape = self.size, width
        return torch.empty(shape, dtype=like.dtype, device=device, pin_memory=on_host)


def belongs_on_host(megabytes: float, free: float) -> bool:
    """Whether a device with so many MB free is too short of them to keep features.

    Half of what is free is left to the network and to sums.

    Example:
        >>> belongs_on_host(512, free=2000), belongs_on_host(512, free=1000)
        (False, True)
    """
    return megabytes > free / 2


def has_own_memory(device: torch.device) -> bool:
    """Whether the memory of a device is not that of the host."""
    return device.type == "cuda"


def free_megabytes(device: torch.device) -> float:
    """Memory that tensors may still take on a device, in MB; infinite where it is the host's."""
    if not has_own_memory(device):
        return float("inf")
    free, whole = torch.cuda.mem_get_info(device)
    may_take: float = free
    with suppress(RuntimeError):  # the allocator of another library, such as RMM, does not tell
        used = torch.cuda.memory_allocated(device)
        own = torch.cuda.get_per_process_memory_fraction(device) * whole
        may_take = min(free + torch.cuda.memory_reserved(device) - used, own - used)
    return may_take / 2**20
