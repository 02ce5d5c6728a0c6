"""Inputs and labels of a batch, as far as there is only one way to read it."""

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_nc.network.nesting import described, parts_of, tensors_in

LABEL_KEYS = ("labels", "label", "targets", "target", "y", "Y")


def unpack_batch(batch: Any, known: Callable[[], Tensor | None] = lambda: None) -> tuple[Any, Any]:
    """Split a batch into the network's inputs and the labels.

    A pair is used as it is. A dict or dataclass is split at a key for labels, or else at the only
    part with a number for each pixel of the first, as in ``{"image", "mask"}``. Of an object with
    an attribute for labels, such as a graph, the whole object is the input. Of a longer tuple or
    list the first item is the input and the second the labels, if these are whole numbers and no
    later item could be labels, or if the dataset declares the second and not the later one. A named
    tuple that cannot be read so is split as a dict is.

    Args:
        batch: A batch on the device.
        known: Returns the labels that the dataset declares for the batch; None if it declares none.

    Raises:
        TypeError: If the batch can be read in several ways, or in none.

    Example:
        >>> unpack_batch({"input_ids": [[1, 2]], "labels": [0]})
        ({'input_ids': [[1, 2]]}, [0])
        >>> unpack_batch((torch.zeros(2, 3), torch.tensor([0, 1]), ["a.png", "b.png"]))[1]
        tensor([0, 1])
    """
    if isinstance(batch, tuple | list):
        if len(batch) == 2:
            return batch[0], batch[1]
        if len(batch) > 2 and _second_is_labels(batch, known):
            return batch[0], batch[1]
    named = batch._asdict() if hasattr(batch, "_asdict") else batch
    if isinstance(named, Mapping) or is_dataclass(named):
        parts = parts_of(named)
        for key in (*LABEL_KEYS, *_labels_of_pixels(parts)):
            if key in parts:
                return {name: part for name, part in parts.items() if name != key}, parts[key]
    elif not isinstance(batch, tuple | list | Tensor | np.ndarray):
        for key in LABEL_KEYS:
            if getattr(batch, key, None) is not None:
                return batch, getattr(batch, key)
    raise TypeError(_cannot_be_unpacked(batch))


def _second_is_labels(batch: Any, known: Callable[[], Tensor | None]) -> bool:
    """Whether the second of several items can only be the labels."""
    could_be = could_be_labels(batch)
    if 1 not in could_be:
        return False
    declared = known()
    if declared is not None:
        declares = [i for i in could_be if _same_labels(batch[i], declared)]
        return declares == [1]
    return could_be == [1] or getattr(batch, "_fields", ("", ""))[1] in LABEL_KEYS


def could_be_labels(batch: Any) -> list[Any]:
    """Positions or keys of the parts after the first that have a whole number for each sample."""
    first, *others = parts_of(batch).items()
    x = next(tensors_in(first[1]), None)
    size = None if x is None or x.ndim == 0 else len(x)
    return [name for name, part in others if _whole_numbers(part) in ((size,), (size, 1))]


def _labels_of_pixels(parts: dict[Any, Any]) -> list[Any]:
    """The key of the only part with a number for each pixel or voxel of the first, (B, C, H, W).

    There is none if the classes could also be of whole images.
    """
    x = next(tensors_in(next(iter(parts.values()), None)), None)
    if x is None or x.ndim < 4 or could_be_labels(parts):
        return []
    shapes = [(len(x), *axis, *x.shape[2:]) for axis in ((), (1,))]
    others = [*parts.items()][1:]
    found = [name for name, part in others if getattr(part, "shape", None) in shapes]
    return found if len(found) == 1 else []


def _whole_numbers(part: Any) -> tuple[int, ...] | None:
    """The shape of a tensor, array or list of whole numbers; None for anything else."""
    if isinstance(part, list):
        return (len(part),) if all(type(each) in (int, bool) for each in part) else None
    if isinstance(part, np.ndarray) and part.dtype.kind in "biu":
        return part.shape
    whole = isinstance(part, Tensor) and not (part.is_floating_point() or part.is_complex())
    return tuple(part.shape) if whole else None


def _same_labels(part: Any, declared: Tensor) -> bool:
    return torch.equal(torch.as_tensor(part).flatten().cpu().long(), declared)


def _cannot_be_unpacked(batch: Any) -> str:
    found = described(batch)
    if isinstance(batch, Tensor | np.ndarray):
        return (
            f"Found no labels in a batch, which is {found}. Give labelled data: "
            'Probe(dataset, name="my_probe").'
        )
    parts, inputs, labels = parts_of(batch), "inputs", "labels"
    could_be = [name for name, part in parts.items() if len(_whole_numbers(part) or ()) == 1]
    others = [name for name in parts if name not in could_be]
    which = ""
    if could_be and others:
        of_items = isinstance(batch, tuple | list | Mapping)
        inputs, *all_labels = (
            f"batch[{name!r}]" if of_items else f"batch.{name}" for name in (others[0], *could_be)
        )
        labels = all_labels[-1]
        if len(all_labels) > 1:
            which = f", if these are {labels}, and not {' or '.join(all_labels[:-1])}"
    several = others and could_be and could_be[-1] not in (0, 1) and isinstance(batch, tuple | list)
    return (
        f"Cannot tell inputs from labels in {found}. Pass a function that separates them{which}: "
        f"Probe(..., unpack=lambda batch: ({inputs}, {labels}))"
        + (f", with batch[:{could_be[-1]}] if the network takes several." if several else ".")
    )
