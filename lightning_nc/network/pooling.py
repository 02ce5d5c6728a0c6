"""How one feature vector per sample is made of what a layer returns."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_nc.network.points import Point, Pool


def features_of(value: Any, point: Point, inputs: Any, samples: int) -> Tensor:
    """Make (N, d) features of what was found at a point.

    Raises:
        TypeError: If there is no floating-point tensor to be found.
        ValueError: If a sequence comes without a pooling, or samples are lost or multiplied.
    """
    # the input of most classifiers is pooled by the network itself
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
            f"Layer '{point.name}' gives {kind}, not a floating-point tensor; say what to take "
            f"from it: layers={{'{point.name}': lambda output: ...}}."
        )
    if features.ndim == 0 or len(features) != samples:
        raise ValueError(
            f"Layer '{point.name}' gives features of shape {tuple(features.shape)} for {samples} "
            "samples; the first axis must be that of the samples. Name other layers, or give a "
            "callable that returns shape (N, d)."
        )
    return features.detach().reshape(samples, -1)


def main_tensor(value: Any) -> Any:
    """The tensor meant by an output: itself, a tuple's first, the logits or states of a mapping."""
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

    What is (N, d) already is left as it is, here and by the other two pools.

    Example:
        >>> first_token(torch.tensor([[[1.0], [2.0]]]))
        tensor([[1.]])
    """
    h = main_tensor(states)
    return h if h.ndim == 2 else h[:, 0]


def last_token(states: Any, inputs: Any = None) -> Tensor:
    """Pool a sequence (N, T, d) to its last token, by ``attention_mask`` if the inputs have one.

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
    last = (mask.bool() * positions).argmax(1)  # also with padding on the left
    return h[torch.arange(len(h), device=h.device), last]


def masked_mean(states: Any, inputs: Any = None) -> Tensor:
    """Pool a sequence (N, T, d) to the mean of its tokens, by ``attention_mask`` if there is one.

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
        f"Layer '{name}' gives a sequence of shape {tuple(features.shape)}; say how to make one "
        "feature vector per sample of it: pool=lightning_nc.first_token, "
        "pool=lightning_nc.masked_mean, pool=lightning_nc.last_token, or pool=torch.nn.Flatten() "
        "to keep all of it."
    )
