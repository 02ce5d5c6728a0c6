"""Make one feature vector per sample from what a layer returns."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_nc.network.points import Point, Pool


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
        ValueError: If a sequence has no pooling, or the first axis is not that of the samples.
    """
    # the input of most heads is pooled by the network itself
    pooled = point.side == "input" and getattr(value, "ndim", None) == 2
    if point.pool is not None and not pooled:
        features = _call_pool(point.pool, value, inputs)
    else:
        features = main_tensor(value)
        if isinstance(features, Tensor) and features.ndim == 3 and point.module is not None:
            raise ValueError(_sequence_without_pool(point.name, features))
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(
            f"Layer '{point.name}' returns {kind}, not a floating-point tensor. Use a function "
            f"that extracts one: layers={{'{point.name}': lambda output: ...}}."
        )
    if features.ndim == 0 or len(features) != samples:
        raise ValueError(
            f"Layer '{point.name}' returns features of shape {tuple(features.shape)} for {samples} "
            "samples, but the first axis must be that of the samples. Name other layers, or use a "
            "callable that returns shape (N, d)."
        )
    if features.numel() == 0:
        raise ValueError(
            f"Layer '{point.name}' returns features of shape {tuple(features.shape)}, which hold "
            "nothing for a sample, so there is nothing to measure. Name other layers."
        )
    return features.detach().reshape(samples, -1)


def main_tensor(value: Any) -> Any:
    """Return the main tensor of an output: itself, or the main tensor of a tuple or mapping.

    This is the tuple's first item, or the mapping's ``logits``, ``last_hidden_state`` or first
    tensor.
    """
    if isinstance(value, Mapping):
        for key in ("logits", "last_hidden_state"):
            if key in value:
                return value[key]
        return next((item for item in value.values() if isinstance(item, Tensor)), value)
    if isinstance(value, tuple | list):
        return main_tensor(value[0]) if value else value
    return value


def first_token(states: Any) -> Tensor:
    """Pool a sequence (N, T, d) to its first token, where BERT and ViT keep their summary.

    A tensor of shape (N, d) is returned unchanged, here and by the other two pools.

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
    """Pool a sequence (N, T, d) to its last token, excluding padding if the inputs have a mask.

    Args:
        states: The layer's output: a tensor, or a tuple or mapping that holds one.
        inputs: The network's inputs; a mapping may hold ``attention_mask``, shape ``(N, T)``.

    Returns:
        Shape ``(N, d)``.

    Example:
        >>> last_token(torch.tensor([[[1.0], [2.0]]]), {"attention_mask": torch.tensor([[1, 0]])})
        tensor([[1.]])
    """
    h = main_tensor(states)
    mask = _attention_mask(inputs)
    if h.ndim == 2:
        return h
    if mask is None:
        return h[:, -1]
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (mask.bool() * positions).argmax(1)  # correct for padding on the left too
    return h[torch.arange(len(h), device=h.device), last]


def masked_mean(states: Any, inputs: Any = None) -> Tensor:
    """Pool a sequence (N, T, d) to the mean of its tokens, excluding padding if there is a mask.

    Args:
        states: The layer's output: a tensor, or a tuple or mapping that holds one.
        inputs: The network's inputs; a mapping may hold ``attention_mask``, shape ``(N, T)``.

    Returns:
        Shape ``(N, d)``.

    Example:
        >>> masked_mean(torch.tensor([[[1.0], [3.0]]]))
        tensor([[2.]])
        >>> masked_mean(torch.tensor([[[1.0], [3.0]]]), {"attention_mask": torch.tensor([[1, 0]])})
        tensor([[1.]])
    """
    h = main_tensor(states)
    mask = _attention_mask(inputs)
    if h.ndim == 2:
        return h
    if mask is None:
        return h.mean(1)
    weights = mask.to(h.dtype)[..., None]  # (N, T, 1)
    return (weights * h).sum(1) / weights.sum(1)


def _attention_mask(inputs: Any) -> Tensor | None:
    return inputs.get("attention_mask") if isinstance(inputs, Mapping) else None


def _call_pool(pool: Pool, value: Any, inputs: Any) -> Tensor:
    """Call ``pool(value)``, or ``pool(value, inputs)`` if it has a parameter ``inputs``."""
    try:
        wants_inputs = "inputs" in inspect.signature(pool).parameters
    except (TypeError, ValueError):  # builtins without a signature
        wants_inputs = False
    return pool(value, inputs=inputs) if wants_inputs else pool(value)


def _sequence_without_pool(name: str, features: Tensor) -> str:
    return (
        f"Layer '{name}' returns a sequence of shape {tuple(features.shape)}. Choose how to pool "
        "it into one feature vector per sample: pool=lightning_nc.first_token, "
        "pool=lightning_nc.masked_mean, pool=lightning_nc.last_token, or pool=torch.nn.Flatten() "
        "to keep all of it."
    )
