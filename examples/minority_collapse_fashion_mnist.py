r"""Minority collapse on FashionMNIST: the smaller the minority classes, the closer their rows.

The K_A majority classes keep 500 images each, the minority classes 500 / R. The mean cosine between
the classifier rows of minority classes rises with R, from -1/9 towards 1. Drawing their images as
often as those of majority classes (oversampling) undoes the rise::

    python examples/minority_collapse_fashion_mnist.py               # K_A = 5
    python examples/minority_collapse_fashion_mnist.py --majority 3 5 7
    python examples/minority_collapse_fashion_mnist.py --full         # as in the paper, on a GPU

A VGG-style network of three convolutions trains on images of 14x14 pixels by SGD with momentum and
weight decay. Beside each measured cosine is the prediction of the layer-peeled model from the class
counts and the measured energies: a question, since weight decay is no norm constraint. The exit
status is 1 unless the cosine rises with every step of R, as far as the paper's, and oversampling at
R = 100 brings it back to that of balanced classes.

Source:
    Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
    collapse in imbalanced training", PNAS 118(43).
"""

import argparse
import math
import sys
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from example_setup import (
    BLUE,
    GREEN,
    ORANGE,
    options_of,
    parsed,
    results_folder,
    save,
    train_quietly,
)
from fashion_mnist import choose, normalize, read, resize, whole_batches
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import TensorDataset
from verdicts import Run as Measured
from verdicts import Values, Verdict, conclude, number, span

from lightning_nc import MinorityCollapse, Probe

NAME = "minority_collapse_fashion_mnist"
K = 10
COLLAPSED = 0.9  # the cosine that the paper's networks reach without minority samples
BACK = 0.1  # largest distance from the cosine of balanced classes that counts as back there ...
AWAY = 0.2  # ... if without oversampling the distance is at least this
KEPT = ("cos_weights", "predicted_cos", "cos_means", "norm_ratio", "minority_accuracy")
RATIOS = (1.0, 10.0, 100.0, math.inf)
COLOURS = (BLUE, ORANGE, GREEN)
VGG11 = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)  # channels; 0 for pooling
SMALL = (16, 0, 32, 0, 64, 0)


class Run(NamedTuple):
    """The training set of a network, and the values measured after training."""

    majority: int
    ratio: float
    oversampled: bool
    values: dict[str, float]


class VGG(pl.LightningModule):
    """Convolutions with BatchNorm, one hidden layer, linear classifier."""

    def __init__(self, channels: tuple[int, ...], size: int, epochs: int, rate: float) -> None:
        super().__init__()
        self.epochs, self.rate = epochs, rate
        layers: list[nn.Module] = []
        last = 1
        for width in channels:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            convolution = nn.Conv2d(last, width, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            last = width
        flat = last * (size // 2 ** channels.count(0)) ** 2
        hidden = min(flat, 64 if channels is SMALL else 512)
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU())
        self.classifier = nn.Linear(hidden, K)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.classifier(self.features(images))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the cross-entropy."""
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[MultiStepLR]]:
        """Divide the learning rate by 10 after one third and after two thirds of the epochs."""
        optimizer = torch.optim.SGD(self.parameters(), self.rate, momentum=0.9, weight_decay=5e-4)
        thirds = [self.epochs // 3, 2 * self.epochs // 3]
        return [optimizer], [MultiStepLR(optimizer, thirds, gamma=0.1)]


def imbalanced(
    images: Tensor, labels: Tensor, majority: int, ratio: float, oversampled: bool
) -> TensorDataset:
    """Keep n_A / R images of each minority class; if oversampled, each of them n_A / n_B times."""
    n_A = int(labels.bincount()[0])
    n_B = 0 if math.isinf(ratio) else max(1, int(n_A / ratio))
    chosen = []
    for k in range(K):
        of_class = (labels == k).nonzero().flatten()
        if k >= majority:
            of_class = of_class[:n_B].repeat(n_A // n_B if oversampled else 1)
        chosen.append(of_class)
    indices = torch.cat(chosen)
    return TensorDataset(images[indices], labels[indices])


def train(
    data: tuple[Tensor, Tensor],
    options: argparse.Namespace,
    seed: int,
    majority: int,
    ratio: float,
    oversampled: bool = False,
) -> Run:
    """Train a network and measure it at the end on a balanced probe."""
    pl.seed_everything(seed, verbose=False)
    images, labels = data
    # the probe has all classes, including those without training samples
    probe = Probe(TensorDataset(images, labels), "all", samples_per_class=100, batch_size=250)
    collapse = MinorityCollapse(
        minority=range(majority, K),
        theory=math.isfinite(ratio),  # the model needs samples of every class
        probe=probe,
        epochs=[options.epochs],
        figures=False,
        merged_above=1,
        on_error="raise",
    )
    channels = VGG11 if options.full else SMALL
    network = VGG(channels, images.shape[-1], options.epochs, options.rate)
    trainset = imbalanced(images, labels, majority, ratio, oversampled)
    train_quietly(network, whole_batches(trainset, 128), options.epochs, [collapse], "auto")
    values = {key.split("/")[-1]: v for key, v in collapse.history[-1].values.items()}
    run = Run(majority, ratio, oversampled, values)
    print(row(run), flush=True)
    return run


HEADER = "K_A      R  oversampled  cos rows  predicted  R_0        cos means  norm ratio  accuracy"


def row(run: Run) -> str:
    """Format a line of the table."""
    v = {"predicted_cos": math.nan, "critical_ratio": math.nan} | run.values
    return (
        f"{run.majority:3}  {run.ratio:5g}  {'yes' if run.oversampled else 'no':11}  "
        f"{v['cos_weights']:8.3f}  {v['predicted_cos']:9.3f}  {v['critical_ratio']:9.4g}  "
        f"{v['cos_means']:9.3f}  {v['norm_ratio']:10.3f}  {v['minority_accuracy']:8.3f}"
    )


def draw(runs: list[Run]) -> Figure:
    """Draw the mean cosine of minority rows against R: measured, oversampled and predicted."""
    figure = Figure((6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    places = {ratio: place for place, ratio in enumerate(RATIOS)}
    for colour, majority in zip(COLOURS, sorted({run.majority for run in runs}), strict=False):
        own = [run for run in runs if run.majority == majority]
        plain = [run for run in own if not run.oversampled]
        label = f"$K_A$ = {majority}"
        for of, style, name in (
            ("cos_weights", "o-", f"measured, {label}"),
            ("predicted_cos", ":", f"layer-peeled model, {label}"),
        ):
            y = [run.values.get(of, math.nan) for run in plain]
            axes.plot([places[r.ratio] for r in plain], y, style, color=colour, label=name)
        over = [run for run in own if run.oversampled]
        y = [run.values["cos_weights"] for run in over]
        axes.plot(
            [places[r.ratio] for r in over],
            y,
            "s",
            color=colour,
            markerfacecolor="white",
            label=f"oversampled, {label}",
        )
    axes.axhline(-1 / (K - 1), color="0.6", linewidth=1)
    axes.text(3.05, -1 / (K - 1), " $-1/(K-1)$", va="bottom", fontsize="small", color="0.4")
    axes.set_xticks(list(places.values()), [f"{ratio:g}" for ratio in RATIOS])
    axes.set_xlim(-0.2, 3.6)
    axes.set_xlabel("imbalance $R$")
    axes.set_ylabel("mean cosine of minority classifier rows")
    axes.set_title("Minority collapse on FashionMNIST")
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize="small", loc="upper left")
    return figure


def judge(values: Values) -> list[Verdict]:
    """Judge the cosines of minority rows, by seed, by K_A, and by R (``oversampled`` at 100)."""
    runs = [of_majority for seed in values.values() for of_majority in seed.values()]
    cosine = {place: [number(run[place]["cos_weights"]) for run in runs] for place in runs[0]}
    measured = [ratio for ratio in map(label, RATIOS) if ratio in cosine]
    steps = list(zip(*(cosine[ratio] for ratio in measured), strict=True))
    away, back = (
        [abs(one - other) for one, other in zip(cosine[key], cosine["1"], strict=True)]
        for key in ("100", "oversampled")
    )
    found = [
        Verdict(
            "7a",
            "the cosine of minority rows rises with R, over R = 1, 10, 100, 1000 and infinity",
            f"it rises with every step of R = {', '.join(measured)}",
            ", ".join(f"{span(cosine[ratio], 2)} at {ratio}" for ratio in measured),
            all(list(each) == sorted(set(each)) for each in steps),
        ),
        Verdict(
            "7b",
            "it comes close to 1 without minority samples",
            f"it is at least {COLLAPSED} at infinity",
            span(cosine["inf"], 2),
            min(cosine["inf"]) >= COLLAPSED,
        ),
        Verdict(
            "8",
            "oversampling the minority undoes its collapse",
            f"at R = 100 the cosine is within {BACK} of that of balanced classes with oversampling,"
            f" and at least {AWAY} from it without",
            f"distance {span(back, 2)} with, {span(away, 2)} without",
            max(back) <= BACK and min(away) >= AWAY,
        ),
    ]
    # a short form leaves out R = 10, and is too short for how far the cosine rises
    return found if "10" in measured else [found[0], found[2]]


def label(ratio: float) -> str:
    """The name of an imbalance among the values."""
    return f"{ratio:g}"


def kept(runs: list[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """The values to judge, of one seed."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for run in runs:
        of_majority = found.setdefault(str(run.majority), {})
        place = "oversampled" if run.oversampled else label(run.ratio)
        of_majority[place] = {key: run.values[key] for key in KEPT if key in run.values}
    return found


def controls(values: Values) -> dict[str, Values]:
    """Values without the phenomenon."""

    def changed(change: dict[str, str]) -> Values:
        return {
            seed: {
                majority: run | {place: run[other] for place, other in change.items()}
                for majority, run in of_seed.items()
            }
            for seed, of_seed in values.items()
        }

    return {
        "balanced classes oversampled in place of R > 1": changed(
            {"100": "oversampled", "inf": "1"}
        ),
        "R = 100 not oversampled": changed({"oversampled": "100"}),
    }


def main() -> int:
    """Train all networks and draw; return 0 if all claims are true."""
    options = parse()
    images, labels = read("train", options.data)
    print(HEADER)
    values, runs_of_first = {}, []
    for seed in options.seeds:
        chosen = choose(labels, options.per_class, seed)
        data = normalize(resize(images[chosen], options.size)), labels[chosen]
        runs = []
        for majority in options.majority:
            ratios = [ratio for ratio in RATIOS if ratio != 10 or not options.short]
            runs += [train(data, options, seed, majority, ratio) for ratio in ratios]
            runs.append(train(data, options, seed, majority, 100.0, oversampled=True))
        values[str(seed)] = kept(runs)
        runs_of_first = runs_of_first or runs
    save(draw(runs_of_first), options.output, NAME)
    settings = {
        "data": f"FashionMNIST, {options.per_class} images of each majority class, "
        f"{options.size} x {options.size}",
        "network": "VGG11" if options.full else "3 convolutions with BatchNorm, a hidden layer",
        "optimizer": f"SGD, rate {options.rate}, momentum 0.9, weight decay 5e-4, batches of 128",
        "epochs": options.epochs,
        "K_A": ", ".join(map(str, options.majority)),
    }
    if options.short:
        settings["form"] = "--short"
    differs = (
        "The paper trains VGG11 and ResNet18 on 6000 images per class of 32 x 32 pixels for 350 "
        "epochs (`--full`, which has not been run), for K_A = 3, 5 and 7, and on CIFAR-10."
    )
    run = Measured(values, controls(values), settings, options.seeds, differs, [f"{NAME}.png"])
    return 0 if conclude(NAME, judge, run, results_folder(options)) else 1


def parse() -> argparse.Namespace:
    """Parse the command line; ``--full`` is a preset."""
    short = "200 images per class, 50 epochs, without R = 10"
    parser = options_of(__doc__, seeds=(0,), fashion_mnist=True, short=short)
    parser.add_argument("--majority", type=int, nargs="+", default=[5], choices=(3, 5, 7))
    parser.add_argument("--per-class", type=int, default=500, help="images of each majority class")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate")
    parser.add_argument("--size", type=int, default=14, help="height and width of images")
    parser.add_argument("--full", action="store_true", help="VGG11, 6000 per class, 350 epochs")
    options = parsed(parser)
    if options.short:
        options.per_class, options.epochs = 200, 50
    if options.full:
        options.per_class, options.size, options.epochs, options.rate = 6000, 32, 350, 0.1
    return options


if __name__ == "__main__":
    sys.exit(main())
