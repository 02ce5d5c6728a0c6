"""Which tokens of sequences are no padding."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from lightning_nc.network.parameters import by_name

_PADDING_MASKS = ("src_key_padding_mask", "key_padding_mask", "padding_mask")
_LENGTHS = ("lengths", "lens", "seq_lens", "seq_lengths", "input_lengths")


def attention_mask(inputs: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The mask that is 1 at the tokens to keep, or else within the lengths that inputs tell."""
    named = by_name(inputs)
    mask = _mask_called_so(named)
    return _within_lengths(named, shape) if mask is None else mask


def mask_of_tokens(inputs: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The mask of the tokens to keep, if the inputs have one of this shape, (N, T)."""
    named = by_name(inputs)
    masks = {name: m for name, m in named.items() if isinstance(m, Tensor) and m.shape == shape}
    mask = _mask_called_so(masks)
    if mask is not None:
        return mask
    padding = next((masks[name] for name in _PADDING_MASKS if name in masks), None)
    # boolean ones are True at padding, additive ones -inf
    return _within_lengths(named, shape) if padding is None else padding == 0


def _mask_called_so(named: Mapping[str, Any]) -> Tensor | None:
    """The ``attention_mask``, or a ``mask`` if its numbers are whole."""
    mask = named.get("mask")
    found: Tensor | None = named.get("attention_mask", mask if _is_whole(mask) else None)
    return found


def _within_lengths(named: Mapping[str, Any], shape: tuple[int, ...]) -> Tensor | None:
    """The mask of sequences that are padded at their ends, if the inputs tell their lengths.

    These are of the tokens of the inputs, whose first axis may be time. A layer that has taken
    several of them for one, or added one of its own, has none of these.
    """
    axes = shape, shape[::-1]
    of_inputs = any(isinstance(x, Tensor) and x.shape[:2] in axes for x in named.values())
    lengths = next((named[name] for name in _LENGTHS if name in named), None)
    if lengths is None or not of_inputs or not _is_whole(lengths) or lengths.shape != shape[:1]:
        return None
    return torch.arange(shape[1], device=lengths.device) < lengths[:, None]


def _is_whole(x: Any) -> bool:
    return isinstance(x, Tensor) and not (x.is_floating_point() or x.dtype == torch.bool)


def mask_of_packed(value: Any) -> Tensor | None:
    """The mask of a packed sequence, shape (N, T); None if the value is none."""
    first = value[0] if isinstance(value, tuple | list) and value else value
    packed = value if isinstance(value, PackedSequence) else first
    if not isinstance(packed, PackedSequence):
        return None
    h, lengths = pad_packed_sequence(packed, batch_first=True)
    steps = torch.arange(h.shape[1], device=h.device)
    return steps < lengths.to(h.device)[:, None]
