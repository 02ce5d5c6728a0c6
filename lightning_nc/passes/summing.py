"""Sums of statistics at points, to which batches are added as the network runs."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_nc.network.points import Point
from lightning_nc.passes.statistics import Statistic, why_failed
from lightning_nc.passes.sums import Sums


class Summing:
    """Adds batches to the sums of the statistics at each point, in the order of their samples.

    Args:
        sums: The sums, by point and name of the statistic.
        declared: The statistics of each point.
        batch_of: Makes what the statistics of a point are of, from its features, the class of each
            sample, and where these samples are among those of this process.
        rank: The slot of this process in sums that do not add up.

    Attributes:
        broken: Why statistics have failed, by point and name; they are not tried again.
    """

    def __init__(
        self,
        sums: Sums,
        declared: Mapping[Point, Sequence[Statistic]],
        batch_of: Callable[[Point, Tensor, Tensor, slice], Any],
        rank: int,
    ) -> None:
        self._sums, self._declared, self._batch_of, self._rank = sums, declared, batch_of, rank
        self._done = dict.fromkeys(declared, 0)
        self.broken: dict[Hashable, Exception] = {}

    def add(self, point: Point, features: Tensor, labels: Tensor) -> None:
        """Add a batch; a statistic that fails does not keep others from theirs."""
        start = self._done[point]
        self._done[point] = start + len(labels)
        batch = self._batch_of(point, features, labels, slice(start, self._done[point]))
        for each in self._declared[point]:
            name = (point, each.name)
            if name in self.broken:
                continue
            try:
                shared = self._sums.view(name)
                each.add_to(shared if each.adds_up else shared[self._rank], batch)
            except Exception as error:
                self.broken[name] = why_failed(each, "summed", error)
