r"""The best depth depends on the data: D of the last layer against the number of layers.

The law would have networks be as deep as can be. "However, a complete story is slightly different":
D of the last layer has a minimum, at a depth that depends on how complex the application is. The
networks of `feed_forward` with 3 to 20 layers learn scikit-learn's digits, which are easy, and
FashionMNIST, which is harder::

    python examples/equi_separation_depth.py

The exit status is 1 unless for both data sets the best depth, with the smallest geometric mean of D
over seeds, lies within the range rather than at an end, and is larger for FashionMNIST.

Source:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
"""

import sys
from itertools import product
from statistics import geometric_mean
from typing import Any

from example_setup import BLUE, ORANGE, options_of, parsed, results_folder, save
from feed_forward import EPOCHS, Setting
from matplotlib.figure import Figure
from trainings import Trainings
from verdicts import Run, Values, Verdict, conclude, number, span

from lightning_nc.figures.canvas import logarithmic

NAME = "equi_separation_depth"
LAYERS = (3, 4, 6, 8, 12, 20)
EASY, HARD = "digits", "FashionMNIST"


def judge(values: Values) -> list[Verdict]:
    """Judge D of the last layer and test accuracy, by data set, depth and seed."""
    best = {data: best_depth(depths) for data, depths in values.items()}
    ends = {min(LAYERS), max(LAYERS)}
    curves = "; ".join(f"{data}: {curve(depths)}" for data, depths in values.items())
    accuracy = ", ".join(
        f"{data} {span([m['test_accuracy'] for seeds in depths.values() for m in seeds.values()])}"
        for data, depths in values.items()
    )
    return [
        Verdict(
            "21a",
            "D of the last layer has a minimum at some depth",
            f"its smallest mean is neither at {min(LAYERS)} nor at {max(LAYERS)} layers",
            f"best {', '.join(f'{d} for {data}' for data, d in best.items())} ({curves})",
            not ends & set(best.values()),
        ),
        Verdict(
            "21b",
            "the choice of depth should consider the complexity of the application",
            f"the best depth is larger for {HARD} than for {EASY}",
            f"{best[HARD]} against {best[EASY]} layers (test accuracy: {accuracy})",
            best[HARD] > best[EASY],
        ),
    ]


def mean_D(seeds: Values) -> float:
    """The geometric mean over seeds of D of the last layer."""
    return geometric_mean(number(measured["D_last"]) for measured in seeds.values())


def best_depth(depths: Values) -> int:
    """The number of layers with the smallest mean."""
    return int(min(depths, key=lambda layers: mean_D(depths[layers])))


def curve(depths: Values) -> str:
    """The means by depth, as text."""
    return ", ".join(f"{layers} layers {mean_D(seeds):.2g}" for layers, seeds in depths.items())


def draw(values: Values) -> Figure:
    """Draw D of the last layer against depth, each seed and their mean."""
    figure = Figure(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for data, color, marker in ((EASY, BLUE, "o"), (HARD, ORANGE, "^")):
        depths = values[data]
        means = [mean_D(depths[str(layers)]) for layers in LAYERS]
        axes.plot(LAYERS, means, f"{marker}-", color=color, label=data)
        for layers in LAYERS:
            of_seeds = [measured["D_last"] for measured in depths[str(layers)].values()]
            axes.plot([layers] * len(of_seeds), of_seeds, ".", color=color, markersize=4)
        axes.plot([best_depth(depths)], [min(means)], "*", color=color, markersize=15)
    logarithmic(axes.xaxis)
    axes.set_xticks(LAYERS, map(str, LAYERS))
    logarithmic(axes.yaxis)
    axes.set_xlabel("layers")
    axes.set_ylabel("separation fuzziness $D$ of the last layer")
    axes.set_title("The best depth (star) depends on the data")
    axes.grid(True, alpha=0.3)
    axes.legend()
    return figure


def main() -> int:
    """Train all networks that were not kept; return 0 if all claims are true."""
    parser = options_of(__doc__, seeds=(0, 1, 2), fashion_mnist=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of every training")
    options = parsed(parser)
    trainings = Trainings(options.data)
    values: dict[str, Any] = {}
    untrained: dict[str, Any] = {}
    for seed, data, layers in product(options.seeds, (EASY, HARD), LAYERS):
        setting = Setting(layers, data=data, epochs=options.epochs, seed=seed)
        before, after = trainings.of(setting, (0, setting.epochs), of_generalisation=True)
        for kept, measured in ((values, after), (untrained, before)):
            of_seeds = kept.setdefault(data, {}).setdefault(str(layers), {})
            of_seeds[str(seed)] = {
                "D_last": measured["D"][-1],
                "pearson_r": measured["pearson_r"],
                "test_accuracy": measured["test_accuracy"],
            }
    save(draw(values), options.output, NAME)
    controls = {
        "the networks before training": untrained,
        f"{EASY} in place of {HARD}": values | {HARD: values[EASY]},
    }
    settings = {
        "data": "100 images per class, FashionMNIST 10 x 10, digits 8 x 8",
        "BatchNorm": "batch statistics",
        "optimizer": "Adam",
        "learning rates": ", ".join(f"{n} layers {Setting(n).rate:.2g}" for n in LAYERS),
        "epochs": options.epochs,
        "trainings": trainings.made(),
    }
    differs = (
        "The talk has MNIST, FashionMNIST and CIFAR-10, and the paper the best of five learning "
        "rates at each depth; here they are the paper's of the headline at 4, 8 and 20 layers, and "
        "on the line between these in logarithms. The rule was written down before the first run."
    )
    run = Run(values, controls, settings, options.seeds, differs, [f"{NAME}.png"])
    return 0 if conclude(NAME, judge, run, results_folder(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
