"""The CPU time of figures: making, drawing and writing each as a PNG file, on one core.

Run as ``python -m tests.benchmarks.figures``; the target is 0.1 s for each.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lightning_nc import figures
from lightning_nc.figures.snapshot import Snapshot
from lightning_nc.functional.cosines import cosine_histogram, cosines
from lightning_nc.loggers.images import save_figure

REPEATS = 5
EPOCHS = list(range(0, 40, 2))


def of_layers(T: int) -> dict[str, Callable[[], Any]]:
    """Figures of T layers."""
    names = [f"net.blocks.{t}" for t in range(T)]
    D = 10 * 0.01 ** torch.linspace(0, 1, T, dtype=torch.float64)
    by_epoch = [D * 0.9**epoch for epoch in EPOCHS]
    return {
        f"law of {T} layers": partial(figures.separation_figure, names, D, "law"),
        f"{T} layers over epochs": partial(
            figures.layers_over_epochs_figure, names, EPOCHS, by_epoch, "by epoch"
        ),
    }


def of_classes(K: int) -> dict[str, Callable[[], Any]]:
    """Figures of K classes."""
    names, vectors = [f"{k}" for k in range(K)], torch.eye(K).double() - 1 / K
    norms = {"rows": vectors.norm(dim=1), "means": vectors.norm(dim=1)}
    counts, minority = torch.arange(K, 0, -1).double(), (torch.arange(K) > 0.7 * K).double()
    shown: dict[str, Any] = {"rows": cosines(vectors), "means": cosines(vectors)}
    of_cosines: Callable[[], Any] = partial(figures.cosine_figure, shown, "cosines", names)
    if K > 50:
        histogram = {"": cosine_histogram(vectors, 201)}
        shown = {"rows": histogram, "means": histogram}
        of_cosines = partial(figures.cosine_histogram_figure, shown, "cosines", K)
    return {
        f"cosines of {K} classes": of_cosines,
        f"norms of {K} classes": partial(
            figures.class_size_figure, counts, norms, minority, names, "norms"
        ),
    }


def others() -> dict[str, Callable[[], Any]]:
    """Figures whose size does not depend on layers or classes."""
    falling = {name: [0.9**epoch for epoch in EPOCHS] for name in ("NC1", "NC2", "NC3", "NC4")}
    plane = torch.tensor([[0.0, 1.0], [-0.9, -0.5], [0.9, -0.5]])
    D = 10 * 0.01 ** torch.linspace(0, 1, 8, dtype=torch.float64)
    names, by_class = list("01234567"), D[:, None] * torch.linspace(0.5, 2, 10).double()
    kernel, labels = torch.eye(50).double(), torch.arange(50) // 5
    ten = [f"{k}" for k in range(10)]
    return {
        "law of 10 classes": partial(
            figures.class_separation_figure, names, by_class, D, ten, "by class"
        ),
        "kernel of 10 classes": partial(figures.similarity_figure, kernel, labels, ten, "kernel"),
        "collapse over epochs": partial(figures.collapse_figure, EPOCHS, falling, 20, "collapse"),
        "snapshot": partial(
            figures.snapshot_figure, Snapshot(plane, plane * 0.9, ["0", "1", "2"], "snapshot")
        ),
    }


def seconds_of(drawing: Callable[[], Any], folder: Path) -> float:
    """The least CPU time of a few repetitions, after a first one that loads fonts."""
    found = []
    for step in range(REPEATS + 1):
        started = time.process_time()
        save_figure(folder, "figure", drawing(), step)
        found.append(time.process_time() - started)
    return min(found[1:])


def main() -> None:
    """Print a line for each figure."""
    every = [*map(of_layers, (8, 18, 100)), *map(of_classes, (10, 100, 1000)), others()]
    with TemporaryDirectory() as folder:
        for name, drawing in (item for group in every for item in group.items()):
            print(f"{name:<28}{seconds_of(drawing, Path(folder)):.3f} s of CPU")


if __name__ == "__main__":
    main()
