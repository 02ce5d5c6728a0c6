r"""Class means move to the corners of a simplex, and the classifier becomes an isometry.

A perceptron and a ResNet-like network train on 100 images per class of FashionMNIST and of
scikit-learn's digits, far past zero training error. A measure of the example's own logs two things
of all classes:

- *Snapshots.* For every three classes, `simplex_plane` projects their means and classifier rows on
  the plane of the means, turned as close as possible to the corners of a triangle of radius 1. The
  mean distance from the corners shrinks, for means and rows;
- *Symmetry.* `simplex_symmetry` of the means in the penultimate layer and of the mean outputs: the
  spreads of distances and of angles, the distance of the centre from the origin, the spread of the
  singular values of the classifier on the span of the means, and its angle with them::

    python examples/simplex_symmetry.py
    python examples/simplex_symmetry.py --short   # the perceptron on digits, one seed

The features of these networks come from a ReLU and are not negative. Then the centre of the means
cannot come to the origin, as it does in the theorem, where features are any functions: as
<y_i, y_j> >= 0, |mean|^2 >= sum |y_i|^2 / K^2, and the distance from it, relative to the root mean
square of |y_i|, is at least 1/sqrt(K) = 0.316. So the centre is judged in the output.

`NeuralCollapse` does not log them, since its rows of NC2 and NC3 say nearly the same (norms and
angles of means and rows, their agreement) at the same cost; a measure like this one adds them.

The exit status is 1 unless, in every run, from the untrained network to the end the distances from
the corners shrink at least threefold and the deviations from symmetry at least twofold.

Sources:
    Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of deep
    learning training", PNAS 117(40), figure 1.
    E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
    layers of neural network classifiers", MSML 2021, PMLR 145.
"""

import argparse
import math
import sys
from itertools import combinations
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from collapsing_networks import features, options_of_runs, parsed_runs, samples
from example_setup import (
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    results_folder,
    save,
    train_quietly,
)
from fashion_mnist import whole_batches
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from neural_collapse import BATCH, OPTIMIZER, Classifier
from torch import Tensor, nn
from verdicts import Run, Values, Verdict, conclude, number, span

from lightning_nc import Measure, MeasureCallback, NeuralCollapse, Probe, Quantity, Request
from lightning_nc.functional import simplex_plane, simplex_symmetry
from lightning_nc.measures.measure import Evaluation
from lightning_nc.passes.request import Answer

NAME = "simplex_symmetry"
NETWORKS, DATA_SETS = ("MLP", "ResNet"), ("FashionMNIST", "digits")
CORNERS, SYMMETRY = 3, 2  # smallest factors by which distances and deviations shrink
PHI = math.pi * (0.5 + 2 * torch.arange(3, dtype=torch.float64) / 3)
TRIANGLE = torch.stack([PHI.cos(), PHI.sin()], 1)
SNAPSHOT = ("corners_means", "corners_rows")
PENULTIMATE = ("distances", "angles", "isometry", "alignment")
OUTPUT = ("output_distances", "output_angles", "output_center")
MEANING = {
    "corners_means": "Distance of the projected means from the corners, over all three classes.",
    "corners_rows": "Distance of the projected classifier rows from the corners.",
    "distances": "Spread of the distances between class means in the penultimate layer.",
    "angles": "Spread of the products of differences of means.",
    "center": "Distance of the centre of the means from the origin; with ReLU at least 1/sqrt(K).",
    "isometry": "Spread of the singular values of the classifier on the span of the means.",
    "alignment": "1 - cosine of classifier row and centred class mean.",
    "output_distances": "Spread of the distances between mean outputs.",
    "output_angles": "Spread of the products of differences of mean outputs.",
    "output_center": "Distance of the centre of the mean outputs from the origin.",
}


class SimplexMeasure(Measure):
    """The snapshot of every three classes, and the symmetry of the last two layers."""

    family = "simplex"
    title = "Simplex symmetry"
    question = "Do the last two layers map classes to the corners of a simplex?"
    quantities = tuple(Quantity(name, "", name, text, "0") for name, text in MEANING.items())

    def request(self) -> Request:
        """Request the last-layer features and the classifier."""
        return Request(classifier=True, needs_head=True)

    def evaluate(self, answer: Answer) -> Evaluation:
        """Compute all deviations."""
        last = answer.classifier
        assert last is not None
        W, b, means = last.weight, last.bias, last.features.means
        assert W is not None
        assert b is not None
        planes = [
            torch.stack(simplex_plane(means[[*three]], W[[*three]]))
            for three in combinations(range(len(means)), 3)
        ]
        corners = (torch.stack(planes) - TRIANGLE).norm(dim=-1).mean((0, 2))
        inside = simplex_symmetry(means, W)
        outside = simplex_symmetry(means @ W.mT + b)
        values = dict(zip(SNAPSHOT, corners.tolist(), strict=True))
        values |= {name: float(value) for name, value in inside._asdict().items()}
        values |= {f"output_{name}": float(getattr(outside, name)) for name in outside._fields[:3]}
        return Evaluation(values)


def judge(values: Values) -> list[Verdict]:
    """Judge the first and the last measurement, by network and data, and by seed."""
    runs = [run for seeds in values.values() for run in seeds.values()]
    shrinks = {
        name: [number(run["start"][name]) / number(run["end"][name]) for run in runs]
        for name in MEANING
    }
    ends = {name: span([run["end"][name] for run in runs], 2) for name in MEANING}

    def verdict(claim: str, talk: str, names: tuple[str, ...], factor: float) -> Verdict:
        found = (f"{name} {span(shrinks[name], 2)} times, to {ends[name]}" for name in names)
        return Verdict(
            claim,
            talk,
            f"{', '.join(names)} shrink at least {factor} times in each of {len(runs)} runs",
            "; ".join(found),
            min(min(shrinks[name]) for name in names) >= factor,
        )

    return [
        verdict(
            "9", "snapshot: means and rows move to the corners of a simplex", SNAPSHOT, CORNERS
        ),
        verdict(
            "51a",
            "class values in the penultimate layer are the corners of a simplex, which the "
            "classifier embeds isometrically, its rows parallel to the centred values",
            PENULTIMATE,
            SYMMETRY,
        ),
        verdict(
            "51b",
            "class values in the output are the corners of a simplex about the origin",
            OUTPUT,
            SYMMETRY,
        ),
    ]


def train(
    kind: str, data: str, seed: int, options: argparse.Namespace
) -> tuple[list[dict[str, float]], Tensor]:
    """Train; return the values of every measurement, and the snapshots of three classes.

    Args:
        kind: A network of `collapsing_networks`, or ``"pixels"`` for a linear classifier.
        data: Name of the data set.
        seed: Seed of samples, network and batches.
        options: Options of the command line.
    """
    pl.seed_everything(seed, verbose=False)
    dataset = samples(data, 100, seed, options.data)
    images = dataset.tensors[0]
    network = (
        nn.Sequential(nn.Flatten()) if kind == "pixels" else features(kind, images.shape[-1], 8)
    )
    model = Classifier(network, network.eval()(images[:1]).shape[1], options.epochs)
    network.train()
    epochs = {0, *np.geomspace(1, options.epochs, 16).round().astype(int).tolist()}
    common = {
        "probe": Probe(dataset, "train", samples_per_class=None, batch_size=250),
        "epochs": sorted(epochs),
        "figures": False,
        "on_error": "raise",
    }
    symmetry = MeasureCallback(SimplexMeasure(), **common)
    collapse = NeuralCollapse(**common)
    train_quietly(model, whole_batches(dataset, BATCH), options.epochs, [symmetry, collapse])
    series = [
        {"epoch": each.epochs_completed}
        | {name: each.values[f"simplex/train/{name}"] for name in MEANING}
        for each in symmetry.history
    ]
    accuracy = collapse.history[-1].values["nc/train/accuracy"]
    print(
        f"{kind}, {data}, seed {seed}: accuracy {accuracy:g}, {series[0]} to {series[-1]}",
        flush=True,
    )
    return series, torch.stack([each.arrays["plane"] for each in collapse.history])


def draw(series: list[dict[str, float]], planes: Tensor, title: str) -> Figure:
    """Draw the way of three classes to the corners, and all deviations over epochs."""
    figure = Figure(figsize=(10.4, 4.6), dpi=110, layout="constrained")
    way, deviations = figure.subplots(1, 2, width_ratios=(1, 1.25))
    draw_snapshots(way, planes)
    names = ("corners_means", "corners_rows", "distances", "angles", "isometry", "alignment")
    colours = (BLUE, BLUE, ORANGE, GREEN, PINK, "0.3")
    epochs = [each["epoch"] for each in series]
    for name, colour in zip(names, colours, strict=True):
        y = [each[name] for each in series]
        style = "--" if name == "corners_rows" else "-"
        label = name.replace("_", " of ").replace("corners", "distance from corners")
        deviations.plot(epochs, y, style, color=colour, label=label)
    deviations.set_xscale("symlog", linthresh=1)
    deviations.set_yscale("log")
    deviations.set_xlabel("epochs completed")
    deviations.set_title("deviations from a simplex")
    deviations.grid(True, which="major", alpha=0.3)
    deviations.legend(fontsize="small")
    figure.suptitle(title)
    return figure


def draw_snapshots(axes: Axes, planes: Tensor) -> None:
    """Draw the first three classes in their plane, from the first snapshot to the last."""
    triangle = torch.cat([TRIANGLE, TRIANGLE[:1]])
    axes.plot(*triangle.T, ":", color="0.6", zorder=0)
    for k, colour in enumerate((BLUE, ORANGE, GREEN)):
        for of, marker, style in ((0, "o", "-"), (1, "x", "--")):
            path = planes[:, of, k]
            axes.plot(*path.T, style, color=colour, linewidth=1)
            axes.plot(*path[:1].T, marker, color=colour, alpha=0.35, markersize=7)
            axes.plot(*path[-1:].T, marker, color=colour, markersize=9)
    axes.plot([], [], "o-", color="0.3", label="class mean")
    axes.plot([], [], "x--", color="0.3", label="classifier row")
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("three classes, first (pale) to last snapshot")
    axes.legend(fontsize="small", loc="upper right")


def ends(series: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """The first and the last measurement."""
    return {"start": series[0], "end": series[-1]}


def measure(options: argparse.Namespace) -> tuple[Run, Figure]:
    """Train all; return the values to judge, and the figure of the first run."""
    values: dict[str, Any] = {}
    untrained: dict[str, Any] = {}
    pixels: dict[str, Any] = {}
    figure = None
    for data in options.data_sets:
        for kind in options.networks:
            name = f"{kind}, {data}"
            values[name], untrained[name] = {}, {}
            for seed in options.seeds:
                series, planes = train(kind, data, seed, options)
                figure = figure or draw(series, planes, name)
                values[name][str(seed)] = ends(series)
                untrained[name][str(seed)] = ends(series[:1])
        seed = options.seeds[0]
        pixels[f"pixels, {data}"] = {str(seed): ends(train("pixels", data, seed, options)[0])}
    settings = {
        "networks": ", ".join(options.networks),
        "data": f"{', '.join(options.data_sets)}, 100 images per class",
        "optimizer": OPTIMIZER,
        "epochs": options.epochs,
    }
    differs = (
        "The talks have an animation and a theorem on minimisers, without numbers of networks: the "
        f"factors {CORNERS} and {SYMMETRY} are this project's, set before the runs. In the theorem "
        "the centre of the penultimate layer is at the origin, too, which a ReLU excludes."
    )
    controls = {
        "the untrained networks": untrained,
        "a linear classifier of pixels, whose class means stay": pixels,
    }
    assert figure is not None
    return Run(values, controls, settings, options.seeds, differs, [f"{NAME}.png"]), figure


def parse() -> argparse.Namespace:
    """Parse the command line."""
    short = "the perceptron on digits, one seed"
    return parsed_runs(options_of_runs(__doc__, short, NETWORKS, DATA_SETS, epochs=100))


def main() -> int:
    """Run the example; return 0 if the networks become symmetric as claimed."""
    options = parse()
    run, figure = measure(options)
    save(figure, options.output, NAME)
    return 0 if conclude(NAME, judge, run, results_folder(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
