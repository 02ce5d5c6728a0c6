r"""The law of equi-separation for three optimizers at three depths: nine panels of the paper.

The networks of `feed_forward` with 4, 8 and 20 layers learn 1000 images of FashionMNIST by SGD, SGD
with momentum, and Adam, with the paper's learning rates::

    python examples/equi_separation_panels.py             # about an hour
    python examples/equi_separation_panels.py --seeds 0   # a third of it

The exit status is 1 unless ln D is a line in every panel and every seed, and less than half of D is
left; with Adam at 8 layers also for each class, and at all depths also on test data.

Source:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
"""

import sys
from typing import Any

import torch
from example_setup import options_of, parsed, results_folder, save
from feed_forward import EPOCHS, LEARNING_RATES, TITLES, Setting, train
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from verdicts import Run, Values, Verdict, conclude, number, span

from lightning_nc.figures import draw_law

NAME = "equi_separation_panels"
LAYERS = (4, 8, 20)
LINE, LEFT = -0.98, 0.5  # r at most, and what is left of D at most


def judge(values: Values) -> list[Verdict]:
    """Judge the last measurement of every panel, by seed."""
    panels = {name: list(seeds.values()) for name, seeds in values.items()}
    r = {name: [number(run["pearson_r"]) for run in runs] for name, runs in panels.items()}
    left = {name: [number(run["total"]) for run in runs] for name, runs in panels.items()}
    found = [
        Verdict(
            f"14{letter}",
            f"panel {name}: ln D against depth is a line",
            f"r is at most {LINE}, and at most {LEFT} of D is left",
            f"r {span(r[name], bound=LINE)}, left of D {span(left[name], 2)}",
            max(r[name]) <= LINE and max(left[name]) <= LEFT,
        )
        for letter, name in zip("abcdefghi", panels, strict=False)
    ]
    return [*found, of_classes(panels), *of_test_data(panels)]


def of_classes(panels: dict[str, list[Any]]) -> Verdict:
    """Claim 27, from the network of 8 layers trained by Adam."""
    runs = panels["Adam, 8 layers"]
    r = [number(each) for run in runs for each in run["class_r"]]
    return Verdict(
        "27",
        "the law holds for each class by itself",
        f"with Adam and 8 layers, r of each of the ten classes is at most {LINE}, and at most "
        f"{LEFT} of D is left",
        f"r {span(r, bound=LINE)}",
        max(r) <= LINE and all(number(run["total"]) <= LEFT for run in runs),
    )


def of_test_data(panels: dict[str, list[Any]]) -> list[Verdict]:
    """Claim 28, from the networks trained by Adam."""
    found = []
    for letter, layers in zip("abc", LAYERS, strict=True):
        runs = panels[f"Adam, {layers} layers"]
        r, left = ([number(run[key]) for run in runs] for key in ("test_r", "test_total"))
        found.append(
            Verdict(
                f"28{letter}",
                f"the law holds on test data, {layers} layers",
                f"with Adam, r on test data is at most {LINE}, and at most {LEFT} of D is left",
                f"r {span(r, bound=LINE)}, left of D {span(left, 2)}",
                max(r) <= LINE and max(left) <= LEFT,
            )
        )
    return found


def draw(laws: dict[str, list[float]]) -> Figure:
    """Draw the law for every optimizer (rows) and depth (columns)."""
    figure = Figure(figsize=(9.6, 8.4), dpi=100, layout="constrained")
    grid = figure.subplots(3, 3, sharex="col", sharey=True)
    for axes, D in zip(grid.flat, laws.values(), strict=True):
        draw_law(axes, torch.tensor(D))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, layers in zip(grid[0], LAYERS, strict=True):
        axes.set_title(f"{layers} layers")
    for axes, title in zip(grid[:, 0], TITLES.values(), strict=True):
        axes.set_ylabel(f"{title}\n$D$")
    figure.supxlabel("layer (0: raw input)", fontsize="medium")
    figure.suptitle("Separation fuzziness $D$ of FashionMNIST after training")
    return figure


def main() -> int:
    """Train with every optimizer at every depth; return 0 if all claims are true."""
    options = parsed(options_of(__doc__, seeds=(0, 1, 2), fashion_mnist=True))
    values: dict[str, Any] = {}
    untrained: dict[str, Any] = {}
    for optimizer, title in TITLES.items():
        for layers in LAYERS:
            name = f"{title}, {layers} layers"
            values[name], untrained[name] = {}, {}
            for seed in options.seeds:
                setting = Setting(layers, optimizer, seed=seed)
                before, after = train(setting, (0, EPOCHS), folder=options.data, of_test_data=True)
                untrained[name][str(seed)], values[name][str(seed)] = before, after
                print(f"{name}, seed {seed}: {after}", flush=True)
    first = {name: next(iter(seeds.values()))["D"] for name, seeds in values.items()}
    save(draw(first), options.output, NAME)
    settings = {
        "data": "FashionMNIST, 100 images per class, 10 x 10",
        "BatchNorm": "batch statistics",
        "epochs": EPOCHS,
        "learning rates by layers": "; ".join(f"{k} {v}" for k, v in LEARNING_RATES.items()),
    }
    controls = {"the networks before training": untrained}
    differs = "Nothing that is known: the settings are the paper's."
    run = Run(values, controls, settings, options.seeds, differs, [f"{NAME}.png"])
    return 0 if conclude(NAME, judge, run, results_folder(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
