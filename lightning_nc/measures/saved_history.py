"""A history as it is written to checkpoints, and read from them whatever has become of it.

It is three objects whatever its length: the layouts, the number of the layout of each measurement,
and the numbers of all measurements.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_nc.measures.rows import HEAD, WORDS, Kept, Layout, Rows

_STAGES = ("fit", "validate", "test", "measure")
_EXACT = 2**53  # whole numbers up to here are exact in float64


def state_of(rows: Rows) -> dict[str, Any]:
    """Return a history as primitives and tensors, which share memory with it.

    The memory that they share is never written to again. Numbers in float64 are there as the
    integers that have their bits, because a device without float64 cannot load them.
    """
    large = rows.only_of_last
    wide = [name for name, array in large.items() if _is_wide(array)]
    return {
        "layouts": [
            {
                "keys": [*layout.keys],
                "arrays": [[each.name, each.dtype, [*each.shape]] for each in layout.arrays],
                **layout.words,
            }
            for layout in rows.layouts
        ],
        "layout_of": torch.from_numpy(rows.layout_of),
        "numbers": torch.from_numpy(rows.numbers).view(torch.int64),
        "large": large | {name: large[name].view(torch.int64) for name in wide},
        "large_in_float64": wide,
    }


def rows_of(state: Any) -> tuple[Rows, list[str]]:
    """Read a history, and say what in it is damaged and left out."""
    try:
        rows = _all_rows_of(state)
    except Exception as error:
        return Rows(), [f"the history ({type(error).__name__}: {str(error)[:100]})"]
    try:
        rows.keep_with_last(_large_of(state))
    except Exception:
        also = ["arrays of the last measurement"]
    else:
        also = []
    rows, lost = _valid(rows)
    return rows, lost + also


def _large_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    large = {**state.get("large", {})}
    if not _are_names([*large]) or not all(map(_is_array, large.values())):
        raise ValueError("they are no arrays with names")
    wide = _listed(state.get("large_in_float64", []))
    return large | {name: large[name].view(torch.float64) for name in wide}


def _all_rows_of(state: Any) -> Rows:
    layouts = [_layout_of(each) for each in _listed(state["layouts"])]
    layout_of = _numbers(state["layout_of"], torch.int64)
    # the first release wrote the numbers themselves
    numbers = _numbers(state["numbers"], torch.int64, torch.float64).view(np.float64)
    if len(layout_of) and not 0 <= layout_of.min() <= layout_of.max() < len(layouts):
        raise ValueError(f"there are {len(layouts)} layouts, and others are named")
    sizes = np.array([each.size for each in layouts], np.int64)[layout_of]
    if sizes.sum() != len(numbers):
        raise ValueError(f"it has {len(numbers)} numbers instead of {sizes.sum()}")
    return Rows(layouts, layout_of, numbers)


def _layout_of(state: Any) -> Layout:
    keys = state["keys"]
    arrays = tuple(_kept_of(*_listed(each)) for each in _listed(state["arrays"]))
    names = [each.name for each in arrays]
    if not _are_names(keys) or not _are_names(names) or names[:1] != [""]:
        raise ValueError("the names of its values are damaged")
    if len(arrays[0].shape) != 1 or getattr(torch, arrays[0].dtype).is_complex:
        raise ValueError("its counts are no number for each class")
    return Layout(tuple(keys), arrays, _words_of(state))


def _kept_of(name: Any, dtype: Any, shape: Any) -> Kept:
    torch.empty(0).to(getattr(torch, dtype))  # raises if there are no arrays of that dtype
    if not all(map(is_count, _listed(shape))):
        raise ValueError(f"{shape} is no shape")
    if math.prod(shape) >= _EXACT:
        raise ValueError(f"arrays of shape {shape} would be too large")
    return Kept(name, dtype, tuple(shape))


def _words_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are no numbers; those that an earlier version did not have are empty.

    Raises:
        ValueError: If one is not of its type.
    """
    words = {field.name: state.get(field.name, _default_of(field)) for field in WORDS}
    for field in WORDS:
        default, value = _default_of(field), words[field.name]
        if not _is_plain(value) or (default is not None and type(value) is not type(default)):
            raise ValueError(f"{field.name} is {value!r}")
    if words["stage"] not in _STAGES:
        raise ValueError(f"{words['stage']!r} is no stage")
    return words


def _default_of(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _numbers(tensor: Any, *dtypes: torch.dtype) -> npt.NDArray[Any]:
    if not isinstance(tensor, Tensor) or tensor.dtype not in dtypes or tensor.ndim != 1:
        raise ValueError(f"no list of numbers of type {dtypes[0]}")
    return tensor.detach().cpu().numpy()


def _valid(rows: Rows) -> tuple[Rows, list[str]]:
    """Return the measurements whose numbers can be right, and how many are left out."""
    good = np.ones(len(rows), bool)
    numbers, starts = rows.numbers, rows.starts
    for name, whole in zip(HEAD, (False, True, False), strict=True):
        good &= _are_amounts(rows.series(name), whole)
    for number, layout in enumerate(rows.layouts):
        of_layout = np.flatnonzero(rows.layout_of == number)
        counts = layout.arrays[0]
        at = starts[of_layout][:, None] + len(layout.columns) + np.arange(counts.size)
        found = numbers[at]
        if getattr(torch, counts.dtype).itemsize >= 8:  # the bits are those of its own type
            found = torch.from_numpy(found).view(getattr(torch, counts.dtype)).double().numpy()
        good[of_layout] &= _are_amounts(found, whole=True).all(1) & (counts.size > 0)
    if good.all():
        return rows, []
    sizes = np.array([each.size for each in rows.layouts], np.int64)[rows.layout_of]
    kept = Rows(rows.layouts, rows.layout_of[good], numbers[np.repeat(good, sizes)])
    if good[-1]:
        kept.keep_with_last(rows.only_of_last)
    return kept, [f"{int((~good).sum())} of {len(rows)} measurements"]


def _are_amounts(numbers: npt.NDArray[Any], whole: bool) -> npt.NDArray[np.bool_]:
    """Which numbers are finite and not negative, and whole numbers where these are counted."""
    with np.errstate(invalid="ignore"):
        amounts = (numbers >= 0) & (numbers < _EXACT)
        return amounts & (numbers == np.floor(numbers)) if whole else amounts


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of things."""
    return type(value) is int and 0 <= value < _EXACT


def _listed(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{type(value).__name__} instead of a list")
    return value


def _are_names(values: Any) -> bool:
    """Whether these are different strings."""
    strings = isinstance(values, list | tuple) and all(isinstance(each, str) for each in values)
    return strings and len(set(values)) == len(values)


def _is_wide(array: Tensor) -> bool:
    return array.dtype == torch.float64 and array.layout == torch.strided


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type != "meta"


def _is_plain(value: Any) -> bool:
    """Whether a value consists of texts and whole numbers, so that it equals itself."""
    if isinstance(value, Mapping):
        return _are_names([*value]) and all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int)
