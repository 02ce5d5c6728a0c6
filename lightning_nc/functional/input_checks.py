"""Checks of features and labels, with messages that say what is wrong."""

import warnings

import torch
from torch import Tensor

from lightning_nc.wording import listed


def check_features(features: Tensor, labels: Tensor) -> Tensor:
    """Return the labels as int64; raise if features or labels are invalid."""
    if not features.is_floating_point():
        raise TypeError(f"Features must be floating point, got {features.dtype}.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"Labels must be class indices (integers), got {labels.dtype}.")
    if features.ndim != 2 or features.shape[1] == 0 or labels.shape != features.shape[:1]:
        raise ValueError(
            "Features must have shape (N, d) and labels shape (N,), "
            f"got {tuple(features.shape)} and {tuple(labels.shape)}."
        )
    if not all_finite(features):
        raise ValueError("Features must be finite, got NaN or infinity.")
    labels = labels.long()  # unsigned integers have no minimum in torch
    if len(labels) == 0 or int(labels.min()) < 0:
        raise ValueError(
            "Need at least one label, and no negative labels; "
            f"got {'none' if len(labels) == 0 else int(labels.min())}."
        )
    return labels


def all_finite(x: Tensor) -> bool:
    """Whether no number is NaN or infinite."""
    # their largest size is NaN if one of them is; `x.isfinite()` would copy all of them
    return x.numel() == 0 or bool(torch.linalg.vector_norm(x.detach(), torch.inf).isfinite())


def check_vectors(vectors: Tensor) -> None:
    """Raise unless these are class vectors with one component or more."""
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(
            f"Class vectors must have shape (K, d) with d of 1 or more, got {tuple(vectors.shape)}."
        )


def require_same_shape(means: Tensor, weight: Tensor) -> None:
    """Raise unless there is a classifier row for each class mean, of the same length."""
    if means.shape != weight.shape:
        raise ValueError(
            "Need class means and classifier rows of the same shape (K, d), "
            f"got {tuple(means.shape)} and {tuple(weight.shape)}."
        )


def number_of_classes(labels: Tensor) -> int:
    """The largest label + 1; raise if that is more than there are samples.

    A class then has no samples, and nothing may be allocated for so many.
    """
    K = int(labels.max()) + 1
    if len(labels) < K:
        raise ValueError(
            f"Label {K - 1} is out of range for {len(labels)} samples, since each of the classes "
            f"0 .. {K - 1} needs one: provide samples of every class, or renumber the labels to "
            "0 .. K-1."
        )
    return K


def require_every_class(counts: Tensor) -> None:
    """Raise unless there are two or more classes, each with samples."""
    present = counts > 0
    if int(present.sum()) < 2:
        raise ValueError(
            f"Need samples of at least two classes, got {int(present.sum())}: "
            "separation compares classes with one another."
        )
    if not bool(present.all()):
        missing = (~present).nonzero().flatten().tolist()
        raise ValueError(
            f"No samples of class {listed(missing, 10)} among {len(counts)} classes: provide "
            "samples of every class, or renumber the labels to 0 .. K-1."
        )


def missing_directions(rank: Tensor, means: Tensor) -> str | None:
    """The number of directions that class means span, as "2 of 3"; None if it is full."""
    full = min(means.shape[0] - 1, means.shape[1])
    return f"{int(rank)} of {full}" if int(rank) < full else None


def warn_if_degenerate(rank: Tensor, means: Tensor) -> None:
    """Warn if class means span fewer directions than ``min(K - 1, d)``."""
    missing = missing_directions(rank, means)
    if missing is not None:
        result = "D and NC1 are undefined" if int(rank) == 0 else "D and NC1 use only these"
        warnings.warn(f"The class means span {missing} directions; {result}.", stacklevel=3)
