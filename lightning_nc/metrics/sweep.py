"""The state of one sweep over the probe: named sums that all processes add up in one reduction."""

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
        self.shapes = dict(shapes)
        size = sum(math.prod(shape) for shape in self.shapes.values())
        self.add_state("flat", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        if device is not None:
            self.to(device)

    def update(self, name: Hashable, value: Tensor) -> None:
        """Add a value to one of the sums."""
        self.views()[name].add_(value)

    def compute(self) -> dict[Hashable, Tensor]:
        """All sums, over all processes, by name."""
        return self.views()

    def views(self) -> dict[Hashable, Tensor]:
        """All sums of this process, by name."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = torch.split(self.flat, sizes)
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("A SweepState lives for one measurement and is not stored.")
