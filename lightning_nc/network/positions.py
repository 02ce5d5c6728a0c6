"""Positions as samples: labels for every token of a sequence, or for every pixel of an image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_nc.network.labels import are_whole
from lightning_nc.network.nesting import dense
from lightning_nc.network.pooling import main_tensor

IGNORED = -100  # the label that torch's cross-entropy ignores by default


class Positions(NamedTuple):
    """The positions of a batch that are samples.

    Attributes:
        items: The sequence or image of each sample, shape ``(n,)``.
        places: Its position there, numbered row by row, shape ``(n,)``.
        grid: Number of positions along each axis: ``(T,)`` or ``(H, W)``.
        batch: Number of sequences or images, B.
    """

    items: Tensor
    places: Tensor
    grid: tuple[int, ...]
    batch: int

    @classmethod
    def of(
        cls, targets: Tensor, ignored: int, items: Tensor | None = None, ranks: Tensor | None = None
    ) -> "Positions":
        """The positions of some samples, known by their ranks among those that are not ignored.

        Ranks do not depend on padding.

        Args:
            targets: Labels of all positions, shape ``(B, T)`` or ``(B, H, W)``.
            ignored: The label of positions that are none.
            items: The sequence or image of each sample, shape ``(n,)``; None for all samples.
            ranks: The rank of each sample there, shape ``(n,)``.

        Raises:
            ValueError: If there is no position of some rank.

        Example:
            >>> targets = torch.tensor([[-100, 5, -100, 7]])
            >>> Positions.of(targets, -100, torch.tensor([0]), torch.tensor([1])).places
            tensor([3])
        """
        kept = (targets != ignored).flatten(1)
        of_all, places = kept.nonzero(as_tuple=True)
        if items is None or ranks is None:
            return cls(of_all, places, tuple(targets.shape[1:]), len(targets))
        counts = kept.sum(1)
        if bool((ranks >= counts[items]).any()):
            raise ValueError(
                "A sequence or image has fewer labelled positions than it had before. Give a "
                "dataset whose labels do not change: probe=Probe(source=dataset, name=...)."
            )
        starts = counts.cumsum(0) - counts
        return cls(items, places[starts[items] + ranks], tuple(targets.shape[1:]), len(targets))

    def labels(self, targets: Tensor) -> Tensor:
        """The labels of the samples, shape ``(n,)``.

        Raises:
            ValueError: If one is negative.
        """
        found: Tensor = targets.flatten(1)[self.items, self.places]
        if len(found) and (low := int(found.min())) < 0:
            raise ValueError(
                f"Label {low} of a position is no class. If it marks positions without a class, "
                f"set Probe(..., ignore_index={low}); if not, renumber labels in Probe(unpack=...)."
            )
        return found

    def to(self, device: torch.device) -> "Positions":
        """The same on a device."""
        return self._replace(items=self.items.to(device), places=self.places.to(device))


def are_of_positions(targets: Any, output_shape: tuple[int, ...] | None) -> bool:
    """Whether labels are of positions: the network's output has their axes, and one of classes.

    Of a single position, (B, 1), they are of samples: each may have several tasks, of which it has
    one.

    Args:
        targets: Labels, whole numbers of any type; of positions they have shape ``(B, T)``,
            ``(B, H, W)`` or ``(B, D, H, W)``.
        output_shape: Shape of the network's output.

    Example:
        >>> are_of_positions(torch.zeros(2, 7).long(), (2, 7, 5))  # classes on the last axis
        True
        >>> are_of_positions(torch.zeros(2, 5).long(), (2, 5))  # several classes per sample
        False
    """
    if not isinstance(targets, Tensor) or targets.ndim < 2 or output_shape is None:
        return False
    if len(output_shape) != targets.ndim + 1 or not are_whole(targets):
        return False
    if targets.ndim > 2:  # maps may be smaller than labels
        return output_shape[0] == len(targets)
    B, T = targets.shape
    return T > 1 and (output_shape[:2] == (B, T) or (output_shape[0], output_shape[2]) == (B, T))


def without_channel(targets: Tensor) -> Tensor:
    """Labels of images and volumes without an axis for a single channel.

    Example:
        >>> without_channel(torch.zeros(5, 1, 32, 32)).shape
        torch.Size([5, 32, 32])
    """
    return targets[:, 0] if targets.ndim > 3 and targets.shape[1] == 1 else targets


def at_positions(h: Tensor, positions: Positions) -> Tensor:
    """The features of samples, where maps may be finer or coarser than labels.

    Args:
        h: Shape ``(B, *sizes, d)``, or ``(B T, d)`` or ``(B H W, d)`` with all positions on one
            axis.
        positions: The samples.

    Returns:
        Shape ``(n, d)``.

    Raises:
        ValueError: If the axes do not fit.
    """
    items, places, grid, batch = positions.to(h.device)
    if h.ndim == 2 and len(h) == batch * math.prod(grid):
        h = h.view(batch, *grid, h.shape[1])
    sizes = tuple(h.shape[1:-1])
    fits = len(sizes) == len(grid) and (
        len(grid) > 1 or sizes[0] % grid[0] == 0 or grid[0] % sizes[0] == 0
    )
    if not fits:
        raise ValueError(
            f"returns features of shape {tuple(h.shape)}, which has no axes for the {grid} "
            "positions that are labelled."
        )
    coordinates = torch.unravel_index(places, grid)
    index = [c * size // n for c, size, n in zip(coordinates, sizes, grid, strict=True)]
    found: Tensor = h[(items, *index)]
    return found


def outputs_at(output: Any, positions: Positions, rows: int) -> list[Tensor]:
    """The network's output at positions, each reading of shape ``(n, R)``, the likelier first.

    There are two if two axes are as long as there are rows, as for a sequence of R positions: maps
    usually have classes first, and sequences last. There is none if the output has other axes.

    Args:
        output: What the network or its head returned.
        positions: The samples.
        rows: Number of rows of the head, R.
    """
    z = main_tensor(output)
    if not isinstance(z, Tensor) or z.ndim != len(positions.grid) + 2:
        return []
    found = []
    for axis in (-1, 1) if len(positions.grid) == 1 else (1, -1):
        if z.shape[axis] == rows:
            try:
                found.append(at_positions(z.movedim(axis, -1), positions))
            except ValueError:
                continue  # the other axes are not those of the labels
    return found


@dataclass(frozen=True)
class AtEveryPosition:
    """Brings the axes of a layer's output in order: samples, positions, channels.

    Attributes:
        sample_axis: The axis of the samples.
        channels_last: Whether the channels are on the last axis; otherwise they follow the samples.
    """

    sample_axis: int = 0
    channels_last: bool = True

    def __call__(self, value: Any) -> Tensor:
        """Return shape ``(B, *sizes, d)``."""
        h = dense(main_tensor(value)).transpose(0, self.sample_axis)
        return h if self.channels_last or h.ndim < 3 else h.movedim(1, -1)

    @property
    def words(self) -> str:
        """What it does, in words."""
        return "positions as samples"


def next_token(batch: Any) -> tuple[Any, Tensor]:
    """Unpack a batch of a causal language model: each token's label is the next token.

    Use it as ``Probe(unpack=next_token)``. Inputs are passed on as they are. The last token has no
    label, nor has padding or a token before it.

    Args:
        batch: A mapping with ``input_ids``, and perhaps ``attention_mask`` and ``labels`` (of the
            tokens themselves, as in transformers), or a tensor of tokens, each of shape ``(B, T)``.

    Returns:
        The inputs, and labels of shape ``(B, T)``.

    Raises:
        TypeError: If the batch holds no tokens.

    Example:
        >>> batch = {"input_ids": torch.tensor([[5, 6, 0]]),
        ...          "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> next_token(batch)[1]
        tensor([[   6, -100, -100]])
    """
    named = dict(batch) if isinstance(batch, Mapping) else {"input_ids": batch}
    tokens = named.get("input_ids")
    if not isinstance(tokens, Tensor) or tokens.ndim != 2:
        raise TypeError(
            "next_token needs a mapping with input_ids, or a tensor of tokens of shape (B, T), got "
            f"{type(batch).__name__}. Write an unpack that returns the inputs and the label of "
            "each token."
        )
    labels = torch.full_like(tokens, IGNORED, dtype=torch.long)
    labels[:, :-1] = named.pop("labels", tokens)[:, 1:]
    if "attention_mask" in named:
        padding = named["attention_mask"] == 0  # on either side
        labels[:, :-1][padding[:, :-1] | padding[:, 1:]] = IGNORED
    return (named if isinstance(batch, Mapping) else batch), labels
