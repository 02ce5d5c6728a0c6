"""FashionMNIST for the examples: read, subsampled class by class, resized and normalised.

The files are those of the data set's authors (gzipped idx). Debian and Ubuntu install them::

    apt-get install dataset-fashion-mnist
"""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

FOLDER = Path("/usr/share/datasets/fashion-mnist")
NAMES = "T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot"
CLASSES = NAMES.split(", ")
_PREFIX = {"train": "train", "test": "t10k"}


def subset(
    split: str, per_class: int, size: int = 28, seed: int = 0, folder: Path = FOLDER
) -> TensorDataset:
    """Load a class-balanced subset of FashionMNIST.

    Args:
        split: ``"train"`` or ``"test"``.
        per_class: Images of each class.
        size: Height and width to which images are resized.
        seed: Seed of the choice of images.
        folder: Folder of the four files.

    Returns:
        Images of shape ``(10 * per_class, 1, size, size)`` in [-1, 1], and labels.
    """
    images, labels = read(split, folder)
    chosen = choose(labels, per_class, seed)
    return TensorDataset(normalize(resize(images[chosen], size)), labels[chosen])


def whole_batches(dataset: TensorDataset, batch_size: int) -> "DataLoader[tuple[Tensor, ...]]":
    """Return a loader of shuffled batches that reads each batch at once.

    This is several times faster than reading sample by sample.

    Args:
        dataset: Samples in memory.
        batch_size: Samples per batch.
    """
    batches = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)
    return DataLoader(dataset, sampler=batches, batch_size=None)


def read(split: str, folder: Path = FOLDER) -> tuple[Tensor, Tensor]:
    """Read all images of a split, and their labels.

    Args:
        split: ``"train"`` or ``"test"``.
        folder: Folder of the four files.

    Returns:
        Images in [0, 1], float32 of shape ``(N, 1, 28, 28)``, and labels of shape ``(N,)``.
    """
    images = _read_idx(folder / f"{_PREFIX[split]}-images-idx3-ubyte.gz")
    labels = _read_idx(folder / f"{_PREFIX[split]}-labels-idx1-ubyte.gz")
    return torch.from_numpy(images)[:, None] / 255, torch.from_numpy(labels).long()


def choose(labels: Tensor, per_class: int | Sequence[int], seed: int) -> Tensor:
    """Draw samples of each class, without replacement.

    Args:
        labels: Class of each sample, shape ``(N,)``.
        per_class: Samples of every class, or of each.
        seed: Seed of the draw.

    Returns:
        Their indices, class by class.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    available = labels.bincount().tolist()
    most = min(available) if isinstance(per_class, int) else available
    sizes = [per_class] * len(available) if isinstance(per_class, int) else per_class
    if len(sizes) != len(available) or not all(
        1 <= size <= there for size, there in zip(sizes, available, strict=True)
    ):
        raise SystemExit(f"Samples per class must be from 1 to {most}, not {per_class}.")
    return torch.cat([order[labels[order] == k][:size] for k, size in enumerate(sizes)])


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images bilinearly with antialiasing, as ``torchvision.transforms.Resize`` does.

    Args:
        images: Images of shape ``(N, 1, height, width)``.
        size: New height and width.
    """
    if images.shape[-1] == size:
        return images
    return interpolate(images, (size, size), mode="bilinear", antialias=True)


def normalize(images: Tensor) -> Tensor:
    """Subtract 0.5 and divide by 0.5: from [0, 1] to [-1, 1]."""
    return (images - 0.5) / 0.5


def _read_idx(path: Path) -> np.ndarray:
    """Read the idx format: two zeros, type (8: bytes), axes, big-endian sizes, values."""
    if not path.exists():
        raise SystemExit(
            f"{path} is missing. Install FashionMNIST with `apt-get install dataset-fashion-mnist`,"
            " or give the folder of its four .gz files with --data."
        )
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is not an idx file of bytes.")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    # a copy, since torch needs a writable array
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape).copy()
