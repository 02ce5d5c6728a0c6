"""The data of the feed-forward networks: images of at most 10x10 pixels with values in [-1, 1].

FashionMNIST (see `fashion_mnist`) and scikit-learn's digits are at hand. Who has the usual files of
others can name their folder: MNIST's four gzipped idx files, or the binary version of CIFAR-10, of
which the green channel is taken, as He & Su do.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from fashion_mnist import choose, normalize, read, resize
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import TensorDataset

SIZE = 10  # of FashionMNIST, MNIST and CIFAR-10; digits have 8x8 pixels
DATA = ("FashionMNIST", "digits", "MNIST", "CIFAR-10")
CIFAR_10 = {
    "train": [f"data_batch_{number}.bin" for number in range(1, 6)],
    "test": ["test_batch.bin"],
}


def training_images(
    data: str, per_class: int | Sequence[int], seed: int, folder: Path
) -> TensorDataset:
    """Draw images of each class.

    Args:
        data: One of `DATA`.
        per_class: Images of every class, or of each.
        seed: Seed of the draw.
        folder: Folder of the files; digits need none.

    Returns:
        Images of shape ``(N, 1, size, size)``, class by class, and labels.
    """
    images, labels = read_all(data, "train", folder)
    return small(images, labels, choose(labels, per_class, seed))


def test_images(
    data: str, per_class: int | Sequence[int], seed: int, folder: Path
) -> TensorDataset:
    """All images of the test set; of digits, which have none, those not drawn for training.

    Args:
        data: One of `DATA`.
        per_class: Images of every class, or of each, that are trained on.
        seed: Seed of their draw.
        folder: Folder of the files; digits need none.

    Returns:
        Images of shape ``(N, 1, size, size)`` and labels.
    """
    images, labels = read_all(data, "test", folder)
    taken = torch.ones(len(labels), dtype=torch.bool)
    if data == "digits":
        taken[choose(labels, per_class, seed)] = False
    return small(images, labels, taken.nonzero().flatten())


def read_all(data: str, split: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] of shape ``(N, 1, height, width)``, and labels."""
    if data == "digits":
        pixels, digits = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
        return (pixels / 16).float().view(-1, 1, 8, 8), digits
    if data == "CIFAR-10":
        records = np.concatenate([read_cifar_10(folder / name) for name in CIFAR_10[split]])
        green = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32)[:, 1:2].copy())
        return green / 255, torch.from_numpy(records[:, 0]).long()
    return read(split, folder)


def read_cifar_10(path: Path) -> np.ndarray:
    """The records of a file: a label and three channels of 32x32 bytes each."""
    if not path.exists():
        raise SystemExit(f"{path} is missing. Give the folder of CIFAR-10's binary version.")
    return np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32)


def small(images: Tensor, labels: Tensor, chosen: Tensor) -> TensorDataset:
    """Some of the images, made as small as the networks take them."""
    taken = images[chosen]
    if taken.shape[-1] > SIZE:
        taken = resize(taken, SIZE)
    return TensorDataset(normalize(taken), labels[chosen])
