"""Statistics: sums over samples at a layer.

A measure declares the statistics that it needs. A pass takes the union of all declared statistics,
sums each once per layer, over batches and over processes, and hands the totals to the measures by
name.
"""

from abc import ABC, abstractmethod
from operator import index
from typing import Any

import torch
from torch import Tensor

from lightning_nc.passes.layer_batches import ResidualBatch
from lightning_nc.wording import shown


class Statistic(ABC):
    """A sum over samples at a layer, from which a measure computes numbers.

    A statistic of your own is a subclass with a name, a shape, and the contribution of one batch.
    List it in the `Request` of a measure: the `Answer` then holds the total under that name in
    ``answer.layers[layer].statistics``. docs/own_measures.md lists what a batch has.

    Attributes:
        name: Its name. Statistics of one name must be equal: of one class, with equal attributes.
        second_sweep: Whether it needs final class means. If so, `of` receives a `ResidualBatch`,
            otherwise a `LayerBatch`.
        adds_up: Whether those of disjoint samples add up. If not, `combine` makes one of several,
            and each process needs memory for the states of all.

    Example:
        The covariance of features within classes, times the number of samples:

        >>> class Scatter(Statistic):
        ...     name = "scatter"
        ...
        ...     def shape(self, K, d):
        ...         return d, d
        ...
        ...     def of(self, batch):
        ...         return batch.residuals.mT @ batch.residuals
    """

    name: str
    second_sweep: bool = True
    adds_up: bool = True

    @abstractmethod
    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """Shape of the sum for K classes and d features; the same on all processes."""

    def shape_over(self, processes: int, K: int, d: int) -> tuple[int, ...]:
        """Shape of what processes share: the sum, or a slot for the state of each.

        Raises:
            TypeError: If the shape is none.
        """
        shape = self.shape(K, d)
        try:
            sizes = tuple(map(index, shape))
        except TypeError as error:
            raise TypeError(
                f"The statistic '{self.name}' has shape {shown(shape)}: shape({K}, {d}) must "
                "return a tuple of whole numbers."
            ) from error
        return sizes if self.adds_up else (processes, *sizes)

    def combine(self, states: Tensor) -> Tensor:
        """The statistic of all samples from those of disjoint samples, along the first axis.

        A state of zeros is that of no samples.
        """
        return states.sum(0)

    def of(self, batch: "ResidualBatch") -> Tensor:
        """The contribution of one batch, of that shape; not needed with an `add_to` of its own."""
        raise NotImplementedError("give the class a method of(batch)")

    def is_same(self, other: "Statistic") -> bool:
        """Whether the other is of the same class, with equal attributes."""
        a, b = vars(self), vars(other)
        return (
            type(self) is type(other)
            and a.keys() == b.keys()
            and all(map(_equal, a.values(), b.values()))
        )

    def add_to(self, total: Tensor, batch: Any) -> None:
        """Add the contribution of a batch to the sum, in place.

        Raises:
            ValueError: If its shape is not that of the sum.
        """
        value = self.of(batch)
        if value.shape != total.shape:
            raise ValueError(
                f"of() returned shape {tuple(value.shape)}, and shape() {tuple(total.shape)}."
            )
        value = value.to(total.device)
        if self.adds_up:
            total += value
        else:
            total.copy_(self.combine(torch.stack([total, value])))


def why_failed(statistic: Statistic, done: str, error: Exception) -> ValueError:
    """The error for a statistic that cannot be summed or combined, which names it."""
    why = f"{type(error).__name__}: {error}"
    named = ValueError(f"The statistic '{statistic.name}' cannot be {done}: {why}")
    named.__cause__ = error
    return named


def _equal(a: Any, b: Any) -> bool:
    if hasattr(a, "__array__") and hasattr(b, "__array__"):  # tensors, and arrays of NumPy
        return torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    return a is b or bool(a == b)


def require_same(one: Statistic, other: Statistic) -> None:
    """Raise unless two statistics of one name are the same.

    Raises:
        ValueError: If they are not.
    """
    if not one.is_same(other):
        raise ValueError(
            f"Two statistics have the name '{one.name}', {type(one).__name__} and "
            f"{type(other).__name__}, but differ. Give each a name of its own."
        )
