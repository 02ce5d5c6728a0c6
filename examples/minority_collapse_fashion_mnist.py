r"""Minority collapse on FashionMNIST: the smaller the minority classes, the closer their rows.

The K_A majority classes keep 1000 images each, the minority classes 1000 / R. The mean cosine
between the classifier rows of minority classes rises with R, from -1/9 towards 1. Drawing their
images as often as those of majority classes (oversampling) undoes the rise::

    python examples/minority_collapse_fashion_mnist.py               # three seeds, 15 minutes
    python examples/minority_collapse_fashion_mnist.py --seeds 0 --networks VGG --majority 5
    python examples/minority_collapse_fashion_mnist.py --full         # as in the paper, on a GPU

A VGG-like and a ResNet-like network train on images of 10x10 pixels by SGD with the paper's rate,
momentum and schedule (a tenth after each third). Beside each measured cosine is the prediction of
the layer-peeled model from the class counts and the measured energies: a question, since weight
decay is no norm constraint.

How long to train follows from weight decay. The rows of classes without samples get nearly the same
gradients, but each starts at a random point of its own, and keeps the part exp(-x) of it,

    x = weight decay * sum over steps of the rate / (1 - momentum).

That start has a squared norm of 1/3 on average (uniform in +-1/sqrt(d)), so that rows with a common
part c have a cosine of |c|^2 / (|c|^2 + exp(-2 x) / 3): for 0.9 at |c| = 0.1 it takes x = 2.9. The
paper's settings give x = 15 at K_A = 5 (82,000 steps); with its weight decay of 5e-4, x = 3 would
take 16,000 steps. Here weight decay is 1e-2, so that 800 steps do.

The exit status is 1 unless, for each network, K_A and seed, the cosine rises with every step of R
until it reaches 0.9, and stays above that (in the model it is exactly 1 from a finite R on, so that
no order is left), is at least 0.9 without minority samples, and oversampling at R = 100 brings it
back to that of balanced classes.

Source:
    Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
    collapse in imbalanced training", PNAS 118(43).
"""

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from example_setup import BLUE, GREEN, ORANGE, options_of, parsed, results_folder, save
from fashion_mnist import choose, normalize, read, resize
from imbalanced_training import BATCH, HEADER, MOMENTUM, RATE, THIRDS, K, Run, train
from matplotlib.figure import Figure
from verdicts import Run as Measured
from verdicts import Values, Verdict, conclude, number, span

NAME = "minority_collapse_fashion_mnist"
COLLAPSED = 0.9  # the cosine that the paper's networks reach without minority samples
RISE = 0.5  # from balanced classes to none of the minority, in a short form
BACK = 0.1  # largest distance from the cosine of balanced classes that counts as back there ...
AWAY = 0.2  # ... if without oversampling the distance is at least this
KEPT = ("cos_weights", "predicted_cos", "cos_means", "norm_ratio", "minority_accuracy")
RATIOS = (1.0, 10.0, 100.0, 1000.0, math.inf)
PANELS = {"VGG": "e: VGG11", "ResNet": "g: ResNet18"}
COLOURS = {3: BLUE, 5: ORANGE, 7: GREEN}  # by K_A


def draw(of_networks: dict[str, Any]) -> Figure:
    """Draw the mean cosine of minority rows against R: measured, oversampled and predicted."""
    figure = Figure((5.2 * len(of_networks), 4.4), dpi=120, layout="constrained")
    grid = figure.subplots(1, len(of_networks), sharey=True, squeeze=False)[0]
    for axes, (kind, of_majority) in zip(grid, of_networks.items(), strict=True):
        places = {label(ratio): place for place, ratio in enumerate(RATIOS)}
        for majority, of_ratio in of_majority.items():
            style = {"color": COLOURS[int(majority)]}
            measured = [(place, of_ratio[r]) for r, place in places.items() if r in of_ratio]
            x = [place for place, _ in measured]
            y = [number(values["cos_weights"]) for _, values in measured]
            axes.plot(x, y, "o-", **style, label=f"$K_A$ = {majority}")
            predicted = [number(values.get("predicted_cos")) for _, values in measured]
            axes.plot(x, predicted, ":", **style)
            y = [number(of_ratio["oversampled"]["cos_weights"])]
            axes.plot([places["100"]], y, "s", **style, markerfacecolor="white", zorder=3)
        axes.axhline(-1 / (K - 1), color="0.6", linewidth=1)
        axes.text(2.6, -1 / (K - 1), "$-1/(K-1)$", va="top", fontsize="small", color="0.4")
        axes.set_xticks(list(places.values()), ["1", "10", "100", "1000", r"$\infty$"])
        axes.set_ylim(-0.25, 1.08)
        axes.set_xlabel("imbalance $R$")
        axes.set_title(f"{kind}-like network")
        axes.grid(True, alpha=0.3)
    grid[0].set_ylabel("mean cosine of minority classifier rows")
    grid[0].plot([], [], ":", color="0.4", label="layer-peeled model")
    grid[0].plot([], [], "s", color="0.4", markerfacecolor="white", label="oversampled")
    grid[0].legend(fontsize="small", loc="upper left")
    figure.suptitle("Minority collapse on FashionMNIST")
    return figure


def judge(values: Values) -> list[Verdict]:
    """Judge the cosines of minority rows by seed, network, K_A, and R (``oversampled`` at 100)."""
    kinds = list(next(iter(values.values())))
    found = []
    for kind in kinds:
        letters = "abc" if kind == "VGG" else "def"
        runs = [run for seed in values.values() for run in seed[kind].values()]
        found += judge_network(PANELS[kind], letters, runs)
    return found


def judge_network(panel: str, letters: str, runs: list[Any]) -> list[Verdict]:
    """Judge all seeds and K_A of one network."""
    cosine = {place: [number(run[place]["cos_weights"]) for run in runs] for place in runs[0]}
    measured = [ratio for ratio in map(label, RATIOS) if ratio in cosine]
    away, back = (
        [abs(one - other) for one, other in zip(cosine[key], cosine["1"], strict=True)]
        for key in ("100", "oversampled")
    )
    size = [end - start for start, end in zip(cosine["1"], cosine["inf"], strict=True)]
    oversampling = Verdict(
        f"8{letters[0]}",
        f"oversampling the minority undoes its collapse, {panel}",
        f"at R = 100 the cosine is within {BACK} of that of balanced classes with oversampling,"
        f" and at least {AWAY} from it without",
        f"distance {span(back, 2)} with, {span(away, 2)} without",
        max(back) <= BACK and min(away) >= AWAY,
    )
    rising = all(rises(of_R) for of_R in zip(*(cosine[ratio] for ratio in measured), strict=True))
    rise = Verdict(
        f"7{letters[0]}",
        f"panel {panel} on FashionMNIST: the cosine of minority rows rises with R = 1, 10, 100, "
        "1000 and infinity",
        f"it rises with every step of R = {', '.join(measured)}, until it is at least {COLLAPSED}",
        ", ".join(f"{span(cosine[ratio], 2)} at {ratio}" for ratio in measured),
        rising,
    )
    if "10" not in measured:  # a short form
        statement = f"{rise.statement}, and by at least {RISE}"
        return [
            rise._replace(statement=statement, holds=rising and min(size) >= RISE),
            oversampling,
        ]
    end = Verdict(
        f"7{letters[1]}",
        f"panel {panel}: it comes close to 1 without minority samples",
        f"it is at least {COLLAPSED} at infinity",
        span(cosine["inf"], 2),
        min(cosine["inf"]) >= COLLAPSED,
    )
    return [rise, end, oversampling]


def rises(cosines: Sequence[float]) -> bool:
    """Whether each cosine is above the one before, or both are above what counts as collapsed."""
    return all(
        before < after or min(before, after) >= COLLAPSED for before, after in pairwise(cosines)
    )


def label(ratio: float) -> str:
    """The name of an imbalance among the values."""
    return f"{ratio:g}"


def kept(runs: list[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """The values to judge, of one seed and network."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for run in sorted(runs, key=lambda run: (run.majority, run.oversampled, run.ratio)):
        of_majority = found.setdefault(str(run.majority), {})
        place = "oversampled" if run.oversampled else label(run.ratio)
        of_majority[place] = {key: run.values[key] for key in KEPT if key in run.values}
    return found


def controls(values: Values) -> dict[str, Values]:
    """Values without the phenomenon."""

    def changed(change: dict[str, str]) -> Values:
        return {
            seed: {
                kind: {
                    majority: run | {place: run[other] for place, other in change.items()}
                    for majority, run in of_kind.items()
                }
                for kind, of_kind in of_seed.items()
            }
            for seed, of_seed in values.items()
        }

    return {
        "balanced classes oversampled in place of R > 1": changed(
            {"100": "oversampled", "inf": "1"}
        ),
        "R = 100 not oversampled": changed({"oversampled": "100"}),
    }


def measure(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train all networks; return the values of one seed, by network."""
    images, labels = read("train", options.data)
    chosen = choose(labels, options.per_class, seed)
    data = normalize(resize(images[chosen], options.size)), labels[chosen]
    ratios = [ratio for ratio in RATIOS[1:] if ratio not in (10, 1000) or not options.short]
    values = {}
    for kind in options.networks:
        runs = train(data, options, kind, seed, options.majority, 1.0)
        for majority in options.majority:
            for ratio in ratios:
                runs += train(data, options, kind, seed, [majority], ratio)
            runs += train(data, options, kind, seed, [majority], 100.0, oversampled=True)
        values[kind] = kept(runs)
    return values


def main() -> int:
    """Train all networks, draw, and judge after each seed; return 0 if all claims are true."""
    options = parse()
    print(HEADER)
    values: dict[str, Any] = {}
    for seed in options.seeds:
        values[str(seed)] = measure(options, seed)
        right = conclude_seeds(values, options)
    return 0 if right else 1


def conclude_seeds(values: dict[str, Any], options: argparse.Namespace) -> bool:
    """Draw the first seed and judge all that are done; return whether all claims are true."""
    save(draw(next(iter(values.values()))), options.output, NAME)
    x = options.decay * RATE / (1 - MOMENTUM) * THIRDS * options.steps
    settings = {
        "data": f"FashionMNIST, {options.per_class} images of each majority class, "
        f"{options.size} x {options.size}",
        "networks": ", ".join(options.networks),
        "optimizer": f"SGD, rate {RATE}, a tenth after each third, momentum {MOMENTUM}, weight "
        f"decay {options.decay}, batches of {BATCH}",
        "length": f"{options.epochs} epochs" if options.epochs else f"{options.steps} steps",
        "K_A": ", ".join(map(str, options.majority)),
    }
    if not options.epochs:
        settings["all weight decay"] = f"exp(-{x:.2f})"
    if options.short:
        settings["form"] = "--short"
    differs = (
        "The paper trains VGG11 and ResNet18 on 6000 images per class of 32 x 32 pixels for 350 "
        "epochs with a weight decay of 5e-4 (`--full`, which has not been run), and also on "
        "CIFAR-10. It shows curves without numbers: 0.9 and the distances are this project's."
    )
    seeds = list(map(int, values))
    run = Measured(values, controls(values), settings, seeds, differs, [f"{NAME}.png"])
    return conclude(NAME, judge, run, results_folder(options))


def parse() -> argparse.Namespace:
    """Parse the command line; ``--full`` is a preset."""
    short = "the VGG-like network, K_A = 5, 400 steps, without R = 10 and 1000"
    parser = options_of(__doc__, seeds=(0, 1, 2), fashion_mnist=True, short=short)
    parser.add_argument("--networks", nargs="+", choices=PANELS, default=list(PANELS))
    parser.add_argument("--majority", type=int, nargs="+", default=[3, 5, 7], choices=(3, 5, 7))
    parser.add_argument("--per-class", type=int, default=1000, help="images of a majority class")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--decay", type=float, default=1e-2, help="weight decay")
    parser.add_argument("--size", type=int, default=10, help="height and width of images")
    parser.add_argument("--full", action="store_true", help="VGG11 and ResNet18 as in the paper")
    options = parsed(parser)
    options.epochs = None
    if options.short:
        options.networks, options.majority, options.seeds = ["VGG"], [5], [0]
        options.steps = 400
    if options.full:
        options.per_class, options.size, options.epochs, options.decay = 6000, 32, 350, 5e-4
    return options


if __name__ == "__main__":
    sys.exit(main())
