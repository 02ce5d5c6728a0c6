"""Choose how to pool the layers of a network whose shapes are known from one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_nc.network.graphs import rows_of_graphs
from lightning_nc.network.points import Place, Point
from lightning_nc.network.pooling import (
    Pooling,
    first_token,
    last_token,
    main_tensor,
    masked_mean,
    spatial_mean,
)
from lightning_nc.network.positions import AtEveryPosition
from lightning_nc.network.trace import Trace

_OURS = (first_token, last_token, masked_mean, spatial_mean)
Shapes = Mapping[Place, tuple[int, ...]]


def shapes_of(found: Trace) -> dict[Place, tuple[int, ...]]:
    """The shapes on both sides of every run of every module, of the raw input and the output."""
    shapes: dict[Place, tuple[int, ...]] = {}
    for run in found.runs:
        if run.shape is not None:
            shapes[run.name, run.number, "output"] = run.shape
        if run.input_shape is not None:
            shapes[run.name, run.number, "input"] = run.input_shape
    if found.raw is not None:
        shapes[None, 0, "output"] = tuple(found.raw.shape)
    if found.returned_shape is not None:
        shapes["", 0, "returned"] = found.returned_shape
    return shapes


class Chooser:
    """Replaces ``"auto"`` by what suits the shape of a layer.

    Vectors stay as they are. Sequences become the mean over their tokens. Feature maps are
    flattened, or become the mean over their positions if they would take too much memory; so does
    the raw input. Of a batch of graphs, nodes and edges become their mean for each graph.

    Args:
        found: A traced forward pass of a batch.
        samples: Samples of that batch, N.
        other: Shapes in a forward pass of a batch of another size, and its samples; only needed if
            `is_unclear`.
        inputs: The inputs of the batch.
    """

    def __init__(
        self,
        found: Trace,
        samples: int,
        other: tuple[Shapes, int] | None = None,
        inputs: Any = None,
    ) -> None:
        self.shapes, self.samples, self.other = shapes_of(found), samples, other
        self.inputs = inputs
        self.channels: dict[Place, tuple[int, bool] | None] = {}
        self.flattened = {(run.name, run.number, "input") for run in found.runs if run.whole_map}
        before: tuple[int, bool] | None = None
        for run in found.runs:
            self.channels[run.name, run.number, "output"] = run.channels
            self.channels[run.name, run.number, "input"] = before
            before = run.channels

    def is_unclear(self, point: Point) -> bool:
        """Whether the first two axes of a sequence could both be that of the samples."""
        shape = self.shapes.get(point.place, ())
        return len(shape) == 3 and shape[0] == shape[1] == self.samples

    def size(self, point: Point) -> int:
        """Numbers per sample at a point, if all are kept."""
        shape = self.shapes.get(point.place, (1,))
        return max(torch.Size(shape).numel() // self.samples, 1)

    def is_map(self, point: Point) -> bool:
        """Whether a point is a feature map or the raw input, which may be too large to flatten."""
        shape = self.shapes.get(point.place, ())
        automatic = point.pool == "auto" and point.side != "input"
        return automatic and (len(shape) > 3 or (point.module is None and len(shape) == 3))

    def chosen(self, point: Point, flatten_maps: bool) -> Point:
        """The point with the pooling that suits it.

        Args:
            point: The point.
            flatten_maps: Whether feature maps are flattened.
        """
        shape = self.shapes.get(point.place)
        axis = 0 if shape is None else self._sample_axis(point, shape)
        if point.pool in _OURS and axis and callable(point.pool):
            return replace(point, pool=Pooling(sample_axis=axis, own=point.pool))
        if point.pool != "auto" or shape is None:
            return point
        if len(shape) <= 2 or point.place in self.flattened:
            return replace(point, pool=Pooling(rows_of_graphs(shape, self.samples, self.inputs)))
        last = self._channels_last(point, shape)
        if self.is_map(point):
            pooling = Pooling(None if flatten_maps else "positions", channels_last=last)
        elif len(shape) == 3:
            pooling = Pooling("tokens", axis, last)
        else:
            pooling = Pooling("positions", channels_last=last)
        return replace(point, pool=pooling)

    def at_every_position(self, point: Point) -> Point:
        """The point with its axes in order, where labels are of positions."""
        shape = self.shapes.get(point.place)
        if point.pool != "auto" or shape is None or len(shape) < 3:
            return point
        axis, last = self._sample_axis(point, shape), self._channels_last(point, shape)
        return replace(point, pool=AtEveryPosition(axis, last))

    def _sample_axis(self, point: Point, shape: tuple[int, ...]) -> int:
        if len(shape) != 3 or point.module is None:
            return 0
        n = self.samples
        if self.is_unclear(point) and self.other is not None:
            shapes, n = self.other
            shape = shapes.get(point.place, shape)
        return 1 if shape[0] != n and shape[1] == n else 0

    def _channels_last(self, point: Point, shape: tuple[int, ...]) -> bool:
        """Whether channels are on the last axis, by the size of the last weighted layer's output.

        If not one axis alone has that size, they are where that layer has them. Before any such
        layer, sequences have them there and maps have not.
        """
        number, kind = self.channels.get(point.place) or (0, len(shape) == 3)
        if (shape[1] == number) != (shape[-1] == number):
            return shape[-1] == number
        return kind


def pooling_of_head(head_output: Any, output: Any, inputs: Any) -> Callable[..., Tensor] | None:
    """How a network pools the output of a head that it applies to every token.

    Its features are then those of the tokens that it uses.

    Args:
        head_output: The head's output, shape ``(N, T, R)``.
        output: The network's output, shape ``(N, R)``.
        inputs: The network's inputs.

    Returns:
        The pool that turns one into the other; None if none of ours does.
    """
    z, wanted = main_tensor(head_output), main_tensor(output)
    if not isinstance(z, Tensor) or not isinstance(wanted, Tensor) or z.ndim != 3:
        return None
    pools: Sequence[Callable[..., Tensor]] = (last_token, first_token, masked_mean)
    for pool in pools:
        found = pool(z) if pool is first_token else pool(z, inputs)
        if found.shape == wanted.shape and _alike(found, wanted):
            return pool
    return None


def _alike(z: Tensor, other: Tensor) -> bool:
    """Whether logits are the same but for a constant of each sample, as log_softmax adds."""
    dtype = torch.promote_types(z.dtype, other.dtype)  # a network may pool in float32
    z, other = z.to(dtype), other.to(dtype)
    if z.shape[1] > 1:
        z, other = (each - each.mean(1, keepdim=True) for each in (z, other))
    return torch.allclose(z, other, rtol=1e-3, atol=1e-6)
