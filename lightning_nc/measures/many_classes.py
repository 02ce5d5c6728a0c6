"""What is kept for figures of many classes: histograms and quantiles, not all pairs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_nc.functional.cosines import cosine_histogram, cosines

FEW = 50  # up to so many classes, figures show each class and each pair of classes
BINS = 201  # an odd number, so that cosines about 0 are in one bin
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def cosine_arrays(
    vectors: Mapping[str, Tensor], groups: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The cosines between classes, as figures show them.

    Args:
        vectors: Class vectors, shape ``(K, d)``, by their name.
        groups: Indices of the classes of each group; None for one group of all classes.

    Returns:
        For up to 50 classes, ``cosines_of_{name}`` of shape ``(K, K)``. For more, how many pairs
        within each group have cosines in each of 201 bins from -1 to 1: ``histogram_of_{name}`` of
        shape ``(201,)`` or, by group, ``histogram_of_{name}_{group}``.
    """
    found = {}
    for name, of_classes in vectors.items():
        if len(of_classes) <= FEW:
            found[f"cosines_of_{name}"] = cosines(of_classes)
        elif groups is None:
            found[f"histogram_of_{name}"] = cosine_histogram(of_classes, BINS)
        else:
            for group, members in groups.items():
                histogram = cosine_histogram(of_classes[members.to(of_classes.device)], BINS)
                found[f"histogram_of_{name}_{group}"] = histogram
    return found


def class_arrays(name: str, values: Tensor) -> dict[str, Tensor]:
    """A value of each class at each layer, as figures show it.

    Args:
        name: Its name.
        values: The values, shape ``(T, K)``.

    Returns:
        For up to 50 classes, the values by their name. For more, ``{name}_quantiles`` over classes,
        shape ``(T, 7)``, for ``QUANTILES``; and ``{name}_extremes``, the indices of the classes
        with the largest and the smallest value at the last layer, shape ``(2,)``.
    """
    if values.shape[1] <= FEW:
        return {name: values}
    levels = torch.tensor(QUANTILES, dtype=values.dtype, device=values.device)
    last = values[-1]
    return {
        f"{name}_quantiles": torch.stack([row.quantile(levels) for row in values]),
        f"{name}_extremes": torch.stack([last.argmax(), last.argmin()]),
    }
