"""FashionMNIST from the files that Debian's package `dataset-fashion-mnist` installs."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path("/usr/share/datasets/fashion-mnist")
_PREFIX = {"train": "train", "test": "t10k"}

available = all(
    (FOLDER / f"{prefix}-{kind}-ubyte.gz").exists()
    for prefix in _PREFIX.values()
    for kind in ("images-idx3", "labels-idx1")
)


def fashion_mnist(split, per_class=None):
    """Images, float32 in [0, 1], (N, 28, 28), and labels; all, or the first few of each class."""
    with gzip.open(FOLDER / f"{_PREFIX[split]}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(FOLDER / f"{_PREFIX[split]}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    if per_class is not None:
        first = [np.flatnonzero(labels == k)[:per_class] for k in range(10)]
        chosen = np.sort(np.concatenate(first))
        images, labels = images[chosen], labels[chosen]
    return torch.from_numpy(images / np.float32(255)), torch.from_numpy(labels.astype(np.int64))


def needs_fashion_mnist(test):
    """Mark a test, and skip it where the files are missing."""
    absent = not available and "REQUIRE_FASHION_MNIST" not in os.environ  # CI fails without it
    missing = pytest.mark.skipif(absent, reason=f"no FashionMNIST in {FOLDER}")
    return pytest.mark.fashion_mnist(missing(test))
