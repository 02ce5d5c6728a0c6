"""What the examples share: options, a quiet Trainer, colours, and the folders they write to."""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from fashion_mnist import FOLDER
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from verdicts import RESULTS, ROOT

from lightning_nc.figures import draw_law

# the palette of Okabe and Ito, which colour-blind readers can tell apart
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"
FIGURES = ROOT / "docs" / "figures"
SHORT = ROOT / ".artifacts" / "examples"  # where short forms write, which prove less


def options_of(
    doc: str | None,
    seed: str = "",
    fashion_mnist: bool = False,
    seeds: Sequence[int] = (),
    short: str = "",
) -> argparse.ArgumentParser:
    """Return a parser with ``--output`` and the other options that an example needs.

    Args:
        doc: The docstring of the example, shown by ``--help``.
        seed: Help text of ``--seed``; without it there is no such option.
        fashion_mnist: Whether the example reads FashionMNIST, from the folder ``--data``.
        seeds: Default of ``--seeds``; without it there is no such option.
        short: What ``--short`` leaves out; without it there is no such option.
    """
    parser = argparse.ArgumentParser(
        description=(doc or "").replace("::", ":"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=FIGURES,
        help="folder for the figure and the results (default: docs/figures and docs/results)",
    )
    if seed:
        parser.add_argument("--seed", type=int, default=0, help=seed)
    if seeds:
        parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds), help="one per run")
    if fashion_mnist:
        parser.add_argument("--data", type=Path, default=FOLDER, help="folder of FashionMNIST")
    if short:
        parser.add_argument("--short", action="store_true", help=short)
    return parser


def classes_of(count: int) -> Callable[[str], tuple[int, ...]]:
    """Return a parser of ``count`` different classes from 0 to 9, such as ``0:6``."""

    def parse(text: str) -> tuple[int, ...]:
        numbers = tuple(map(int, text.split(":")))
        if len(set(numbers)) < len(numbers) or len(numbers) != count or max(numbers) > 9:
            raise argparse.ArgumentTypeError(
                f"{text} is not {count} different classes from 0 to 9 with : between them."
            )
        return numbers

    return parse


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; what a short form shows does not replace what is kept."""
    options = parser.parse_args()
    if getattr(options, "short", False) and options.output == FIGURES:
        options.output = SHORT
    use_one_thread()
    return options


def results_folder(options: argparse.Namespace) -> Path:
    """Where the file of results goes: docs/results, or beside a figure put elsewhere."""
    return RESULTS if options.output == FIGURES else options.output


class CrossEntropyModule(pl.LightningModule):
    """A classifier that learns by cross-entropy; what it is and how it is optimized is to add."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the cross-entropy."""
        inputs, labels = batch
        return nn.functional.cross_entropy(self(inputs), labels)


def thirds_of(epochs: int) -> list[int]:
    """The epochs after one third and after two thirds of a training."""
    return [round(epochs / 3), round(2 * epochs / 3)]


def draw_laws(grid: Iterable[Axes], laws: Mapping[str, Sequence[float]]) -> None:
    """Draw the law of D, given by title, on the axes of a grid."""
    for axes, (title, D) in zip(grid, laws.items(), strict=False):
        draw_law(axes, torch.tensor(D))
        axes.set_title(title, fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def train_quietly(
    model: pl.LightningModule,
    loader: object,
    epochs: int,
    callbacks: Sequence[pl.Callback],
    accelerator: str = "cpu",
) -> None:
    """Fit a model without printing anything.

    Args:
        model: The model.
        loader: The training loader.
        epochs: Number of epochs.
        callbacks: Callbacks of the Trainer.
        accelerator: Accelerator of the Trainer; small networks train faster on a CPU than a GPU.
    """
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator=accelerator,
            max_epochs=epochs,
            callbacks=[*callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stdout.isatty(),
        )
        trainer.fit(model, loader)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints to itself."""
    names = ("pytorch_lightning", "lightning.pytorch", "lightning.fabric")
    logs = {log: log.level for log in map(logging.getLogger, names)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")
        warnings.filterwarnings("ignore", module="pytorch_lightning", category=FutureWarning)
        for log in logs:
            log.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for log, level in logs.items():
                log.setLevel(level)


def use_one_thread() -> None:
    """Use one thread, which is faster than several on the small matrices of the examples."""
    torch.set_num_threads(1)


def grouped_bars(
    axes: Axes,
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    looks: Mapping[str, Mapping[str, Any]],
    bottom: float = 0.0,
) -> None:
    """Draw a group of bars for each key: means over seeds, with the values of the seeds as dots.

    Args:
        axes: Where to draw.
        groups: Values by group and bar.
        looks: The bars of each group from left to right, with their colours and the like.
        bottom: Where bars begin.
    """
    width = 0.85 / len(looks)
    for bar, (name, look) in enumerate(looks.items()):
        places = [place + (bar - (len(looks) - 1) / 2) * width for place in range(len(groups))]
        seeds = [list(group[name]) for group in groups.values()]
        heights = [sum(each) / len(each) - bottom for each in seeds]
        axes.bar(places, heights, 0.92 * width, bottom=bottom, label=name, **look)
        for place, each in zip(places, seeds, strict=True):
            axes.plot([place] * len(each), each, ".", color="black", markersize=2.5)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.grid(True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as a PNG, and print its path.

    Args:
        figure: The figure.
        folder: Where to write it.
        name: Name of the file, without its ending.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path)
    print(f"figure: {path}")
