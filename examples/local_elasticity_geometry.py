r"""Local elasticity follows the shape of the data in a ReLU network, not in a linear one.

A gradient step on one sample moves the predictions for its neighbours. On a folded curve or sheet,
neighbours along it (by geodesic distance) and neighbours in space are not the same. There are two
data sets in R^3, each of two classes of 100 samples that no plane separates: the strands of a
double helix, and two folded boxes, which are sheets bent into a U and hooked into each other so
that an arm of each lies between the arms of the other::

    python examples/local_elasticity_geometry.py

As in the talk, networks of two layers learn the helix and networks of three layers the boxes, once
with ReLUs and once without (a linear network, which training changes, too). Similarity within the
first class is the relative similarity S_rel in the limit of small steps, symmetrised as
(S + S^T) / 2; r is its Pearson correlation with geodesic distance over all pairs. The effect of a
step of a trained ReLU network fades with geodesic distance, though not completely: one turn
further along the helix some similarity is left. That of a linear network fades less, across all
folds. The exit status is 1 unless, on both data sets, the ReLU network separates the classes,
training lowers its r, and leaves it well below that of the trained linear network.

Source:
    He & Su (2020), "The local elasticity of neural networks", ICLR.
"""

import argparse
import math
import sys
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from example_setup import BLUE, ORANGE, options_of, parsed, results_folder, save
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn
from verdicts import Run, Values, Verdict, conclude, number, span

from lightning_nc.functional.step_similarity import relative_similarity

NAME = "local_elasticity_geometry"
PER_CLASS, STEPS, RATE, WIDTH = 100, 1000, 1e-2, 128
TURNS, PITCH = 3, 0.5  # of a helix of radius 1; its strands are 0.25 apart along the axis
ARM, GAP = 5.0, 0.5  # of a folded box: length of an arm, and distance to arms of the other box
MARGIN = 0.15  # smallest difference in r
COLORS = {"linear": ORANGE, "ReLU": BLUE}
LAYERS = {"double helix": 2, "folded boxes": 3}
CLAIMS = {"double helix": "33", "folded boxes": "34"}
TALK = {
    "double helix": "two-layer networks fitting a double helix: similarity follows the strand with "
    "ReLU, and not in a linear network",
    "folded boxes": "three-layer networks fitting two folded boxes: similarity follows the sheet "
    "with ReLU, and not in a linear network",
}
SIMILARITY = ScalarMappable(Normalize(0, 1), "viridis")


class Data(NamedTuple):
    """Two classes, one after the other.

    Attributes:
        points: Samples, shape (200, 3).
        geodesic: Geodesic distances within the first class, shape (100, 100).
        edges: Lines to draw for the first class and for the second, shape (n, 3) each.
        star: Index of the sample whose similarities are shown.
        aspect: Relative lengths of the three axes as drawn.
        view: Elevation and azimuth of the viewer, in degrees.
    """

    points: Tensor
    geodesic: Tensor
    edges: tuple[list[Tensor], list[Tensor]]
    star: int
    aspect: tuple[float, float, float]
    view: tuple[float, float]


class Result(NamedTuple):
    """Similarities of a network after training, and their r before and after."""

    accuracy: float
    before: float
    after: float
    similarity: Tensor


def helix() -> Data:
    """Two strands around one axis, opposite each other."""
    t = torch.linspace(0, 2 * math.pi * TURNS, PER_CLASS, dtype=torch.float64)
    height = PITCH * (t / (2 * math.pi) - TURNS / 2)
    first, second = (
        torch.stack([torch.cos(t + p), torch.sin(t + p), height], 1) for p in (0, math.pi)
    )
    arc_length = t * math.hypot(1, PITCH / (2 * math.pi))
    geodesic = (arc_length[:, None] - arc_length).abs()
    edges = [first], [second]
    return Data(torch.cat([first, second]), geodesic, edges, 61, (2, 2, 2), (12, -65))


def boxes() -> Data:
    """Two sheets of width 1 along paths that each enclose an arm of the other, minus their mean."""
    first = [(ARM, 0), (0, 0), (0, 2 * GAP), (ARM, 2 * GAP)]
    second = [(GAP, GAP), (ARM + GAP, GAP), (ARM + GAP, 3 * GAP), (GAP, 3 * GAP)]
    length = torch.linspace(0, 2 * ARM + 2 * GAP, PER_CLASS, dtype=torch.float64)
    sheets, unfolded, lines = [], [], []
    for corners in (torch.tensor(path, dtype=torch.float64) for path in (first, second)):
        height = torch.rand(PER_CLASS, 1, dtype=torch.float64)
        sheets.append(torch.cat([along(corners, length), height], 1))
        unfolded.append(torch.cat([length[:, None], height], 1))
        lines.append([torch.cat([corners, torch.full((4, 1), h)], 1) for h in (0.0, 1.0)])
    points = torch.cat(sheets)
    of_first, of_second = ([edge - points.mean(0) for edge in sheet] for sheet in lines)
    geodesic = torch.cdist(unfolded[0], unfolded[0])
    # the aspect draws arms farther apart than they are, or one would hide the other
    edges = of_first, of_second
    return Data(points - points.mean(0), geodesic, edges, 25, (5, 4.5, 1.6), (42, -80))


def along(corners: Tensor, length: Tensor) -> Tensor:
    """Points at given lengths along a path of three straight parts."""
    parts = corners.diff(dim=0)
    sizes = parts.norm(dim=1)
    within = (length[:, None] - (sizes.cumsum(0) - sizes)).clamp(min=0).minimum(sizes)
    return corners[0] + (within / sizes) @ parts


def network(layers: int, kind: str) -> nn.Module:
    """A linear or a ReLU network with one output."""
    widths = [3] + [WIDTH] * (layers - 1)
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Linear(before, after)] + [nn.ReLU()] * (kind == "ReLU")
    return nn.Sequential(*parts, nn.Linear(WIDTH, 1)).double()


def train(network: nn.Module, points: Tensor) -> float:
    """Train a network to tell the classes apart; return its accuracy on the same samples."""
    labels = torch.arange(2).repeat_interleave(PER_CLASS).double()
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        logits = network(points)[:, 0]
        nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        optimizer.step()
    return float(((network(points)[:, 0] > 0) == labels.bool()).double().mean())


def similarities(network: nn.Module, data: Data) -> Tensor:
    """Symmetrised similarities of the samples of the first class."""

    # with one output all losses have the same S_rel; in a trained network the logistic loss is so
    # flat that its gradients round to 0, while those of the output itself do not vanish
    def output(f: Tensor, y: Tensor) -> Tensor:
        return f.sum()

    S = relative_similarity(network, data.points[:PER_CLASS], torch.ones(PER_CLASS), output)
    return (S + S.mT) / 2


def pairs(matrix: Tensor) -> Tensor:
    """Entries above the diagonal: each pair of samples once."""
    i, j = torch.triu_indices(PER_CLASS, PER_CLASS, offset=1)
    return matrix[i, j]


def correlation(similarity: Tensor, data: Data) -> float:
    """Pearson correlation r of similarity and geodesic distance."""
    return float(torch.corrcoef(torch.stack([pairs(similarity), pairs(data.geodesic)]))[0, 1])


def measure(network: nn.Module, data: Data) -> Result:
    """Train a network; compare similarities with distances before and after."""
    before = correlation(similarities(network, data), data)
    accuracy = train(network, data.points)
    similarity = similarities(network, data)
    return Result(accuracy, before, correlation(similarity, data), similarity)


def judge(values: Values) -> list[Verdict]:
    """Judge accuracy, and r ``before`` and ``after`` training, by data set, seed and network."""
    found = []
    for name, seeds in values.items():
        relu, linear = ([run[kind] for run in seeds.values()] for kind in ("ReLU", "linear"))
        falls = [number(each["before"]) - number(each["after"]) for each in relu]
        below = [number(b["after"]) - number(a["after"]) for a, b in zip(relu, linear, strict=True)]
        numbers = [
            f"{kind} {span([each['before'] for each in runs], 2)} before, "
            f"{span([each['after'] for each in runs], 2)} after"
            for kind, runs in (("ReLU", relu), ("linear", linear))
        ]
        found.append(
            Verdict(
                CLAIMS[name],
                TALK[name],
                "the ReLU network separates the classes; training lowers its correlation r of "
                f"similarity and geodesic distance by {MARGIN} or more, to {MARGIN} or more below "
                "the trained linear network's",
                "; ".join(numbers),
                all(each["accuracy"] == 1 for each in relu) and min(falls + below) >= MARGIN,
            )
        )
    return found


def draw_shape(axes: Any, data: Data, result: Result, title: str) -> None:
    """Draw the first class coloured by similarity to the star, and the second in grey."""
    for edges, color in zip(data.edges, ("0.55", "0.85"), strict=True):
        for edge in edges:
            axes.plot(*edge.T, color=color, linewidth=0.8, zorder=1)
    first, second = data.points.split(PER_CLASS)
    axes.scatter(*second.T, color="0.8", s=6, depthshade=False)
    color = SIMILARITY.to_rgba(result.similarity[data.star].numpy())
    axes.scatter(*first.T, color=color, s=26, depthshade=False, edgecolor="0.3", linewidth=0.3)
    axes.scatter(
        *first[data.star], marker="*", s=190, color=SIMILARITY.to_rgba(1), edgecolor="black"
    )
    axes.set_box_aspect(data.aspect, zoom=1.12)
    axes.view_init(*data.view)
    axes.set_axis_off()
    axes.set_title(title, y=0.94)


def draw_scatter(axes: Axes, data: Data, result: Result, color: str) -> None:
    """Draw similarity against geodesic distance, pair by pair."""
    x, y = pairs(data.geodesic), pairs(result.similarity)
    axes.plot(x, y, ".", color=color, markersize=2, alpha=0.3, rasterized=True)
    axes.text(
        0.96, 0.95, f"$r = {result.after:.2f}$", transform=axes.transAxes, ha="right", va="top"
    )
    axes.set_ylim(0)
    axes.set_xlabel("geodesic distance")
    axes.set_ylabel("relative similarity")
    axes.grid(True, alpha=0.3)


def draw(datasets: dict[str, Data], results: dict[tuple[str, str], Result]) -> Figure:
    """Draw a row for each data set; for each network, its shape and the pairs of samples."""
    figure = Figure(figsize=(15, 7.6), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 4, width_ratios=(1.4, 1, 1.4, 1))
    for row, (name, data) in enumerate(datasets.items()):
        for column, (kind, color) in enumerate(COLORS.items()):
            result = results[name, kind]
            shape = figure.add_subplot(grid[row, 2 * column], projection="3d")
            draw_shape(shape, data, result, f"{name}, {kind} network")
            draw_scatter(figure.add_subplot(grid[row, 2 * column + 1]), data, result, color)
    label = "relative similarity to the star"
    figure.colorbar(SIMILARITY, ax=figure.axes, label=label, extend="max", shrink=0.7, aspect=40)
    return figure


def run_all(options: argparse.Namespace) -> tuple[Run, dict[str, Data], dict[Any, Result]]:
    """Train all networks; return the values, and data and results of the first seed."""
    values: dict[str, Any] = {name: {} for name in LAYERS}
    datasets: dict[str, Data] = {}
    results: dict[Any, Result] = {}
    for seed in options.seeds:
        torch.manual_seed(seed)
        for name, data in {"double helix": helix(), "folded boxes": boxes()}.items():
            datasets.setdefault(name, data)
            values[name][str(seed)] = {}
            for kind in COLORS:
                found = measure(network(LAYERS[name], kind), data)
                results.setdefault((name, kind), found)
                kept = {key: value for key, value in found._asdict().items() if key != "similarity"}
                values[name][str(seed)][kind] = kept
                print(f"{name}, seed {seed}, {kind}: {kept}", flush=True)
    controls = {
        "a linear network in place of the ReLU one": {
            name: {seed: run | {"ReLU": run["linear"]} for seed, run in runs.items()}
            for name, runs in values.items()
        },
        "the ReLU network before training": {
            name: {
                seed: run | {"ReLU": run["ReLU"] | {"after": run["ReLU"]["before"]}}
                for seed, run in runs.items()
            }
            for name, runs in values.items()
        },
    }
    settings = {
        "samples per class": PER_CLASS,
        "width": WIDTH,
        "layers": ", ".join(f"{count} ({name})" for name, count in LAYERS.items()),
        "optimizer": f"Adam, rate {RATE}, {STEPS} steps on all samples",
    }
    differs = (
        "The talk shows similarities to one point as colours; here they are correlated with "
        "geodesic distance over all pairs. Sizes of the shapes, widths and training are ours."
    )
    run = Run(values, controls, settings, options.seeds, differs, [f"{NAME}.png"])
    return run, datasets, results


def main() -> int:
    """Run the example; return 0 if all claims are true."""
    options = parsed(options_of(__doc__, seeds=(0, 1, 2), short="one seed"))
    if options.short:
        options.seeds = options.seeds[:1]
    run, datasets, results = run_all(options)
    save(draw(datasets, results), options.output, NAME)
    return 0 if conclude(NAME, judge, run, results_folder(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
