"""The state of one sweep over the probe: named sums that all processes add up in one reduction."""

import itertools
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class SweepState(Metric):
    """Sums over samples, kept as views of one flat float64 vector.

    However many layers are measured, the processes add up their sums in a single all-reduce. The
    layout depends on the names and shapes alone, never on what a process has seen.

    Args:
        shapes: Shape of each named sum.
        all_reduce: Adds a tensor up over processes and returns the result; None for one process.
        device: Where the sums are kept.

    Example:
        >>> state = SweepState({"counts": (2,), "sum": ()})
        >>> state.update("counts", torch.tensor([1.0, 0.0]))
        >>> state.update("counts", torch.tensor([1.0, 1.0]))
        >>> state.compute()["counts"], state.compute()["sum"]
        (tensor([2., 1.], dtype=torch.float64), tensor(0., dtype=torch.float64))
    """

    full_state_update = False
    flat: Tensor

    def __init__(
        self,
        shapes: Mapping[Hashable, tuple[int, ...]],
        all_reduce: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(
            # one element, already reduced over processes: the "sum" over it changes nothing
            dist_sync_fn=lambda flat, group: [all_reduce(flat.clone())] if all_reduce else [flat],
            distributed_available_fn=lambda: all_reduce is not None,
            compute_with_cache=False,
        )
        sizes = [math.prod(shape) for shape in shapes.values()]
        starts = [0, *itertools.accumulate(sizes)][:-1]
        places = zip(starts, sizes, shapes.values(), strict=True)
        self._layout = dict(zip(shapes, places, strict=True))
        self.add_state("flat", torch.zeros(sum(sizes), dtype=torch.float64), dist_reduce_fx="sum")
        if device is not None:
            self.to(device)

    def update(self, name: Hashable, value: Tensor) -> None:
        """Add a value to one of the sums."""
        self.view(name).add_(value)

    def compute(self) -> dict[Hashable, Tensor]:
        """All sums, over all processes, by name."""
        return {name: self.view(name) for name in self._layout}

    def view(self, name: Hashable) -> Tensor:
        """One of the sums, of this process alone."""
        start, size, shape = self._layout[name]
        return self.flat[start : start + size].view(shape)

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("A SweepState lives for one measurement and is not stored.")
