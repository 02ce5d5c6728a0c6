r"""Equi-separation and generalization: training all layers against half at a time.

A network of `feed_forward` with 20 layers is trained as a whole. Another one is frozen in part: the
bottom 10 layers are trained while the others are fixed at random, then the top 10 while the bottom
is fixed. The talk: both have about the same final separation measure and training loss, but the
frozen one does not separate by equal steps, and its test accuracy is lower, 18.25 % against 21.46 %
(on CIFAR-10, here FashionMNIST)::

    python examples/equi_separation_freezing.py

The exit status is 1 unless in every seed the last D are within a factor of 2 and the losses within
0.01 nats, ln D is a line in the network trained as a whole alone, and its test accuracy is higher,
on average by at least two standard errors of the differences.

Source:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
"""

import math
import sys
from statistics import mean, stdev
from typing import Any

import torch
from example_setup import options_of, parsed, results_folder, save
from feed_forward import ALONE, EPOCHS, Setting
from matplotlib.figure import Figure
from trainings import Trainings
from verdicts import Run, Values, Verdict, conclude, number, span

from lightning_nc.figures import draw_law

NAME = "equi_separation_freezing"
LAYERS, BOTTOM = 20, 10
LINE, LEFT = -0.98, 0.5  # as in the nine panels: r at most, and what is left of D at most
FACTOR, NATS, ERRORS = 2, 0.01, 2
KINDS = {"unfrozen": 0, "frozen": BOTTOM}
KEPT = ("epoch", "pearson_r", "total", "D", "loss", "test_accuracy")


def judge(values: Values) -> list[Verdict]:
    """Judge the networks ``unfrozen`` and ``frozen`` by seed."""
    unfrozen, frozen = (list(values[kind].values()) for kind in KINDS)
    last, loss = (
        {kind: [number(get(run)) for run in values[kind].values()] for kind in KINDS}
        for get in (lambda run: run["D"][-1], lambda run: run["loss"])
    )
    factors = [max(a / b, b / a) for a, b in zip(*last.values(), strict=True)]
    apart = [abs(a - b) for a, b in zip(*loss.values(), strict=True)]
    r = {kind: [number(run["pearson_r"]) for run in values[kind].values()] for kind in KINDS}
    gains = [
        number(one["test_accuracy"]) - number(other["test_accuracy"])
        for one, other in zip(unfrozen, frozen, strict=True)
    ]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
    return [
        Verdict(
            "24a",
            "unfrozen and frozen have about the same final separation measure and training loss",
            f"last D within a factor of {FACTOR}, and losses within {NATS} nats",
            f"last D {span(last['unfrozen'])} and {span(last['frozen'])}, "
            f"loss {span(loss['unfrozen'])} and {span(loss['frozen'])}",
            max(factors) <= FACTOR and max(apart) <= NATS,
        ),
        Verdict(
            "24b",
            "the law holds in the unfrozen network and not in the frozen one",
            f"r is at most {LINE} with at most {LEFT} of D left in the one, and above in the other",
            f"r {span(r['unfrozen'], bound=LINE)} and {span(r['frozen'], bound=LINE)}",
            all(map(obeys, unfrozen)) and not any(map(obeys, frozen)),
        ),
        Verdict(
            "24c",
            "test accuracy: unfrozen 21.46 %, frozen 18.25 %",
            f"unfrozen is above frozen in every seed, on average by {ERRORS} standard errors",
            f"{percent(unfrozen)} and {percent(frozen)}; "
            f"difference {100 * mean(gains):.2f} +- {100 * error:.2f} points",
            min(gains) > 0 and mean(gains) >= ERRORS * error,
        ),
    ]


def obeys(run: Values) -> bool:
    """Whether ln D is a line and less than half of D is left."""
    return number(run["pearson_r"]) <= LINE and number(run["total"]) <= LEFT


def percent(runs: list[Any]) -> str:
    """The test accuracies, as text."""
    return f"{span([100 * number(run['test_accuracy']) for run in runs], 4)} %"


def draw(values: Values) -> Figure:
    """Draw the law of the first seed in both networks."""
    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    both[0].set_ylabel("separation fuzziness $D$")
    figure.supxlabel("layer (0: raw input)", fontsize="medium")
    for axes, kind in zip(both, KINDS, strict=True):
        run = next(iter(values[kind].values()))
        draw_law(axes, torch.tensor(run["D"]))
        axes.set_title(f"{kind}: test accuracy {run['test_accuracy']:.1%}")
        axes.set_xticks(range(0, LAYERS, 4))
    return figure


def main() -> int:
    """Train all networks that were not kept; return 0 if all claims are true."""
    parser = options_of(__doc__, seeds=(0, 1, 2), fashion_mnist=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of all or the top layers")
    options = parsed(parser)
    trainings = Trainings(options.data)
    values: dict[str, Any] = {kind: {} for kind in KINDS}
    untrained: dict[str, Any] = {}
    for seed in options.seeds:
        for kind, bottom in KINDS.items():
            setting = Setting(LAYERS, epochs=options.epochs, seed=seed, bottom_first=bottom)
            measured = trainings.of(setting, (0, setting.epochs), of_generalisation=True)
            before, after = ({key: each[key] for key in KEPT} for each in measured)
            values[kind][str(seed)] = after
            if kind == "unfrozen":
                untrained[str(seed)] = before
    save(draw(values), options.output, NAME)
    seeds = list(untrained)
    others = dict(zip(seeds, [values["unfrozen"][s] for s in seeds[1:] + seeds[:1]], strict=True))
    controls = {
        "the unfrozen network of the next seed for the frozen one": values | {"frozen": others},
        "an untrained network for the frozen one": values | {"frozen": untrained},
    }
    settings = {
        "data": "FashionMNIST, 100 images per class, 10 x 10, tested on all 10,000 test images",
        "layers": f"{LAYERS}, of which the bottom {BOTTOM} are trained first",
        "BatchNorm": "batch statistics for D, running ones for loss and test accuracy",
        "optimizer": f"Adam, learning rate {Setting(LAYERS).rate}",
        "epochs": f"{options.epochs}; frozen {ALONE * options.epochs:.0f} and {options.epochs}",
        "trainings": trainings.made(),
    }
    differs = (
        "The talk has CIFAR-10. Whether that changes the order of the test accuracies has not been "
        "tried; after a third of the epochs, frozen is better by 3 points, and the law fails in "
        "some unfrozen ones. Bounds and rules were written down before the first run."
    )
    run = Run(values, controls, settings, options.seeds, differs, [f"{NAME}.png"])
    return 0 if conclude(NAME, judge, run, results_folder(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
