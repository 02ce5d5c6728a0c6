"""The names of classes, where a dataset tells them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_nc.network.labels import innermost


def class_names(dataset: Any, largest: int) -> Sequence[str] | None:
    """Return the names of the classes by label; None if the dataset does not tell them.

    They are ``classes`` of the datasets of torchvision, or the names of a feature of ``datasets``.

    Args:
        dataset: The dataset, perhaps inside `Subset`.
        largest: The largest label that must have a name.

    Example:
        >>> from torch.utils.data import Subset
        >>> class Pets(list):
        ...     classes = ["cat", "dog"]
        >>> class_names(Subset(Pets([(0.5, 1)]), [0]), 1)
        ['cat', 'dog']
    """
    dataset = innermost(dataset)
    features = getattr(dataset, "features", None)
    named = features.values() if isinstance(features, Mapping) else ()
    found = [getattr(dataset, "classes", None), *(getattr(each, "names", None) for each in named)]
    lists = [names for names in found if isinstance(names, list | tuple) and len(names) > largest]
    return next((names for names in lists if all(isinstance(n, str) for n in names)), None)


def names_of_classes(dataset: Any, classes: Tensor) -> tuple[str, ...]:
    """Return the names of some classes, or their labels; nothing if these are 0 to K - 1.

    Args:
        dataset: The dataset, which may tell names.
        classes: Labels, ascending, shape ``(K,)``.

    Example:
        >>> import torch
        >>> names_of_classes([], torch.tensor([3, 7]))
        ('3', '7')
    """
    labels = classes.tolist()
    names = class_names(dataset, labels[-1])
    if names is not None:
        return tuple(names[label] for label in labels)
    return () if labels == list(range(len(labels))) else tuple(map(str, labels))
