"""Named sums over samples, which all processes add up in one reduction."""

import itertools
import math
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor


class Sums:
    """Sums over samples, kept as views of one flat float64 vector.

    However many layers are measured, a single reduction adds up the sums of all processes. The
    layout depends only on names and shapes, never on the samples that a process has read.

    Args:
        shapes: Shape of each sum, by name.
        device: Where the sums are kept.

    Example:
        >>> sums = Sums({"counts": (2,), "total": ()})
        >>> sums.add("counts", torch.tensor([1.0, 0.0]))
        >>> sums.add("counts", torch.tensor([1.0, 1.0]))
        >>> sums.over_processes()["counts"]
        tensor([2., 1.], dtype=torch.float64)
    """

    def __init__(
        self, shapes: Mapping[Hashable, tuple[int, ...]], device: torch.device | None = None
    ) -> None:
        sizes = [math.prod(shape) for shape in shapes.values()]
        starts = [0, *itertools.accumulate(sizes)][:-1]
        places = zip(starts, sizes, shapes.values(), strict=True)
        self._layout = dict(zip(shapes, places, strict=True))
        self.flat = torch.zeros(sum(sizes), dtype=torch.float64, device=device)

    def add(self, name: Hashable, value: Tensor) -> None:
        """Add a value, on any device, to one of the sums."""
        self.view(name).add_(value.to(self.flat.device))

    def view(self, name: Hashable) -> Tensor:
        """A view of one of the sums of this process."""
        start, size, shape = self._layout[name]
        return self.flat[start : start + size].view(shape)

    def over_processes(
        self, all_reduce: Callable[[Tensor], Tensor] = lambda flat: flat
    ) -> dict[Hashable, Tensor]:
        """Return all sums by name, added up over processes; nothing can be added afterwards."""
        self.flat = all_reduce(self.flat)
        totals = {name: self.view(name) for name in self._layout}
        self._layout = {}
        return totals
