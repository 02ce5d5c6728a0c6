"""Make one feature vector per sample from what a layer returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from lightning_nc.network.graphs import graphs_of, mean_of_graphs
from lightning_nc.network.nesting import dense, parts_of, plain
from lightning_nc.network.padding import attention_mask, mask_of_packed, mask_of_tokens
from lightning_nc.network.parameters import accept, parameters_of
from lightning_nc.network.points import Point


def features_of(value: Any, point: Point, inputs: Any, samples: int) -> Tensor:
    """Make features from the value at a point.

    Args:
        value: The output or input of the point's module.
        point: The point.
        inputs: The network's inputs, for pools that use them.
        samples: The number of samples N in the batch.

    Returns:
        Shape ``(N, d)``.

    Raises:
        TypeError: If the value holds no floating-point tensor.
        ValueError: If the first axis is not that of the samples.
    """
    # the input of most heads is pooled by the network itself
    pooled = point.side == "input" and getattr(value, "ndim", None) == 2 and len(value) == samples
    if callable(point.pool) and not pooled:
        features = call_pool(point.pool, value, inputs)
    else:
        features = main_tensor(value)
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(
            f"Layer '{point.name}' returns {kind}, not a floating-point tensor. Use a function "
            f"that extracts one: layers={{'{point.name}': lambda output: ...}}."
        )
    if features.ndim == 0 or len(features) != samples:
        raise ValueError(
            f"Layer '{point.name}' returns features of shape {tuple(features.shape)} for {samples} "
            "samples, but the first axis must be that of the samples. Name other layers, or make "
            "features of shape (N, d): pool=lambda output, inputs: ..."
            + _of_members(features, samples)
        )
    if features.numel() == 0:
        raise ValueError(
            f"Layer '{point.name}' returns features of shape {tuple(features.shape)}, which hold "
            "nothing for a sample, so there is nothing to measure. Name other layers."
        )
    return dense(plain(features).detach()).reshape(samples, -1)


def _of_members(features: Tensor, samples: int) -> str:
    """What to do about an ensemble whose members are stacked, if there may be one; or nothing."""
    if features.ndim == 0 or len(features) == 0 or len(features) % samples:
        return ""
    return (
        ' Of an ensemble whose members are stacked, call one, Probe(..., forward="member"), or '
        "take its rows, output[:len(inputs)]."
    )


@dataclass(frozen=True)
class Pooling:
    """Makes one vector per sample from a layer whose axes are known.

    Attributes:
        mean: What is averaged over: the tokens of a sequence, excluding padding if the inputs tell
            it, the positions of a feature map, or the nodes or edges of a graph; None keeps all
            numbers.
        sample_axis: The axis of the samples: 1 in sequences whose first axis is time.
        channels_last: Whether the channels are on the last axis; otherwise they follow the samples.
        own: A function that pools instead, once the samples are on the first axis.
    """

    mean: Literal["tokens", "positions", "nodes", "edges"] | None = None
    sample_axis: int = 0
    channels_last: bool = True
    own: Callable[..., Tensor] | None = None

    def __call__(self, value: Any, inputs: Any = None) -> Tensor:
        """Pool the value at a point to shape ``(N, d)``."""
        h = dense(main_tensor(value)).transpose(0, self.sample_axis)
        if self.own is not None:
            return call_pool(self.own, h, inputs)
        if self.mean in ("nodes", "edges"):
            graphs = graphs_of(inputs)
            return mean_of_graphs(h, graphs[self.mean], int(graphs["nodes"].max()) + 1)
        if self.mean is None or h.ndim == 2:
            return h.flatten(1)
        channels_last = h if self.channels_last else h.movedim(1, -1)
        kept = mask_of_packed(value) if self.mean == "tokens" else None
        if self.mean == "tokens" and kept is None:
            kept = mask_of_tokens(inputs, channels_last.shape[:2])
        return _mean(channels_last.flatten(1, -2), kept)

    @property
    def words(self) -> str:
        """What it does, in words; empty if it keeps all numbers."""
        if self.own is not None:
            return str(getattr(self.own, "__name__", self.own)).replace("_", " ")
        return f"mean over {self.mean}" if self.mean else ""


def main_tensor(value: Any) -> Any:
    """Return the main tensor of an output: itself, or the main tensor of a tuple or mapping.

    This is the mapping's or dataclass's ``logits``, ``last_hidden_state`` or first tensor, or the
    tuple's first item. What is None or a single number, such as a loss, is passed over. A packed
    sequence is padded, shape ``(N, T, d)``.
    """
    if isinstance(value, PackedSequence):
        return pad_packed_sequence(value, batch_first=True)[0]
    if is_dataclass(value) and not isinstance(value, Mapping):
        value = parts_of(value)
    if isinstance(value, Mapping):
        for key in ("logits", "last_hidden_state"):
            if key in value:
                return main_tensor(value[key])
        tensors = [plain(item) for item in value.values() if isinstance(item, Tensor)]
        return next((item for item in tensors if item.ndim), tensors[0] if tensors else value)
    if isinstance(value, tuple | list):
        others = (item for item in value if not (item is None or getattr(item, "ndim", 1) == 0))
        return main_tensor(next(others, value[0])) if value else value
    return plain(value) if isinstance(value, Tensor) else value


def first_token(states: Any) -> Tensor:
    """Pool a sequence (N, T, d) to its first token, where BERT and ViT keep their summary.

    A tensor of shape (N, d) is returned unchanged, here and by the other pools.

    Args:
        states: The layer's output: a tensor, or a tuple or mapping that holds one.

    Returns:
        Shape ``(N, d)``.

    Example:
        >>> first_token(torch.tensor([[[1.0], [2.0]]]))
        tensor([[1.]])
    """
    h = main_tensor(states)
    return h if h.ndim == 2 else h[:, 0]


def last_token(states: Any, inputs: Any = None) -> Tensor:
    """Pool a sequence (N, T, d) to its last token, excluding padding if the inputs tell it.

    Args:
        states: The layer's output: a tensor, or a tuple or mapping that holds one.
        inputs: The network's inputs; a mapping may hold ``attention_mask``, shape ``(N, T)``, or
            ``lengths``, shape ``(N,)``.

    Returns:
        Shape ``(N, d)``.

    Example:
        >>> last_token(torch.tensor([[[1.0], [2.0]]]), {"attention_mask": torch.tensor([[1, 0]])})
        tensor([[1.]])
    """
    h = main_tensor(states)
    if h.ndim == 2:
        return h
    mask = attention_mask(inputs, h.shape[:2])
    if mask is None:
        return h[:, -1]
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (mask.bool() * positions).argmax(1)  # correct for padding on the left too
    return h[torch.arange(len(h), device=h.device), last.to(h.device)]


def masked_mean(states: Any, inputs: Any = None) -> Tensor:
    """Pool a sequence (N, T, d) to the mean of its tokens, excluding padding if the inputs tell it.

    Args:
        states: The layer's output: a tensor, or a tuple or mapping that holds one.
        inputs: The network's inputs; a mapping may hold ``attention_mask``, shape ``(N, T)``, or
            ``lengths``, shape ``(N,)``.

    Returns:
        Shape ``(N, d)``.

    Example:
        >>> masked_mean(torch.tensor([[[1.0], [3.0]]]))
        tensor([[2.]])
        >>> masked_mean(torch.tensor([[[1.0], [3.0]]]), {"attention_mask": torch.tensor([[1, 0]])})
        tensor([[1.]])
    """
    h = main_tensor(states)
    return h if h.ndim == 2 else _mean(h, attention_mask(inputs, h.shape[:2]))


def spatial_mean(maps: Any) -> Tensor:
    """Pool feature maps (N, C, ...) to the mean over their positions, as global pooling does.

    Args:
        maps: The layer's output: a tensor, or a tuple or mapping that holds one.

    Returns:
        Shape ``(N, C)``.

    Example:
        >>> spatial_mean(torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]]))
        tensor([[4.]])
    """
    h = main_tensor(maps)
    return h if h.ndim == 2 else h.flatten(2).mean(2)


def _mean(h: Tensor, kept: Tensor | None) -> Tensor:
    """The mean over tokens that are kept: shapes (N, T, d) and (N, T) to (N, d).

    It is in float32 or better, since the sum of many tokens overflows in half precision.
    """
    wide = torch.promote_types(h.dtype, torch.float32)
    if kept is None:
        return h.mean(1, dtype=wide)
    left_out = kept.to(h.device)[..., None] == 0  # where h may be anything, also NaN
    return h.masked_fill(left_out, 0).sum(1, dtype=wide) / (~left_out).sum(1)


def call_pool(pool: Callable[..., Tensor], value: Any, inputs: Any) -> Tensor:
    """Call ``pool(value)``, or also with inputs if a parameter is called so, or it needs two."""
    parameters = parameters_of(pool)
    if "inputs" in parameters:
        return pool(value, inputs=inputs)
    one, both = (value,), (value, inputs)
    needs_both = not accept(parameters, one, {}) and accept(parameters, both, {})
    return pool(*both) if needs_both else pool(*one)
