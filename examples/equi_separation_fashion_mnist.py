r"""The law of equi-separation on FashionMNIST: the "8-layer" network of the paper's Figure 1.

A feedforward network of seven Linear-BatchNorm-ReLU blocks and a linear classifier learns 1000
images. In the trained network, every block reduces the separation fuzziness D by about the same
ratio rho, so that ln D against depth is a straight line::

    python examples/equi_separation_fashion_mnist.py
    python examples/equi_separation_fashion_mnist.py --short   # one seed, a sixth of the epochs

The talk has correlation -0.997, rho = 0.53, half-life 1.1. Correlation alone is reached within
some ten epochs, so rho must be right, too. The law emerges from none within a few epochs, long
before neural collapse: D of the last layer goes on falling. Without ReLU, and without BatchNorm,
the same training gives no law. The exit status is 1 unless all of this is so for every seed (of the
networks without, only the first is trained).

Source:
    He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
"""

import argparse
import math
import sys
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import torch
from example_setup import BLUE, ORANGE, options_of, parsed, results_folder, save
from feed_forward import EPOCHS, LEARNING_RATES, Setting, train
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from verdicts import Run, Values, Verdict, conclude, number, span

from lightning_nc.figures import draw_law
from lightning_nc.figures.canvas import logarithmic

NAME = "equi_separation_fashion_mnist"
TALK = (0, 10, 20, 30, 50, 100, 200, 300, 600)  # epochs of the talk's panels
MEASURED = sorted({*TALK, 1, 2, 3, 5, 150, 250, 400})
HOLDS, ABSENT = -0.99, -0.95  # the law holds up to the first r, and fails above the second
RHO = (0.45, 0.56)  # over three seeds it is .49 to .53
EMERGED = 0.1  # of D is left at most where the law has emerged: rho below .72 for seven layers
STEP = 1.5  # smallest factor by which what is left falls from 0 to 10 to 100 to 600 epochs
EARLIER = 4  # the law emerges in at most this fraction of the time in which NC1 settles ...
STILL = 3  # ... when D of the last layer is still at least this many times its final value
STATED = ("layers", "optimizer", "nonlinear", "batch_norm", "epochs")
WITHOUT = {"linear": "without ReLU", "no_batch_norm": "without BatchNorm"}

Series = list[dict[str, Any]]  # one dict of values per measured epoch, see `feed_forward.train`


def judge(values: Values) -> list[Verdict]:
    """Judge runs: ``complete``, and where they were made ``linear`` and ``no_batch_norm``.

    Each is a series of measurements by seed, over ``epochs`` epochs.
    """
    complete = list(values["complete"].values())
    found = [emergence(complete)]
    if values["epochs"] == EPOCHS:  # rho and the end of NC1 are those of as many epochs only
        found += [headline(complete), earlier(complete)]
    if all(kind in values for kind in WITHOUT):
        found.append(needed(complete, {kind: list(values[kind].values()) for kind in WITHOUT}))
    return found


def headline(runs: list[Series]) -> Verdict:
    """Claim 13, from the last measurement of each run."""
    r, rho = (column([run[-1] for run in runs], key) for key in ("pearson_r", "rho"))
    half_life = [math.log(2) / -math.log(each) if each < 1 else math.inf for each in rho]
    ends = [math.log(2) / -math.log(end) for end in RHO]
    return Verdict(
        "13",
        "8 layers, Adam, FashionMNIST: correlation -0.997, rho 0.53, half-life 1.1",
        f"r is at most {HOLDS} and rho from {RHO[0]} to {RHO[1]}, half-life from {ends[0]:.2f} to "
        f"{ends[1]:.2f}",
        f"r {span(r)}, rho {span(rho)}, half-life {span(half_life)}",
        all(each <= HOLDS for each in r) and all(RHO[0] <= each <= RHO[1] for each in rho),
    )


def emergence(runs: list[Series]) -> Verdict:
    """Claim 15, from those of the epochs of the talk's nine panels that were measured."""
    right, r_before, r_after, left = True, [], [], []
    for run in runs:
        at = {m["epoch"]: m for m in run}
        panels = [at[epoch] for epoch in TALK if epoch in at]
        r = column(panels, "pearson_r")
        total = column([at[epoch] for epoch in (0, 10, 100, 600) if epoch in at], "total")
        falls = [one / other >= STEP for one, other in pairwise(total)]
        right &= absent(panels[0]) and len(falls) >= 2 and all(falls)
        right &= all(each <= HOLDS for each in r[1:])
        r_before.append(r[0])
        r_after += r[1:]
        left.append(" > ".join(f"{each:.2g}" for each in total))
    return Verdict(
        "15",
        "panels of ln D at epochs 0, 10, 20, 30, 50, 100, 200, 300, 600: none at 0, then a line",
        f"no law at 0, r at most {HOLDS} at all others, and what is left of D falls at least "
        f"{STEP} times from 0 to 10 to 100 to 600",
        f"r {span(r_before)} at 0, {span(r_after)} after; left: {'; '.join(left)}",
        right,
    )


def earlier(runs: list[Series]) -> Verdict:
    """Claim 16: when the law has emerged, and when NC1 has settled."""
    right, laws, settled, ratios = True, [], [], []
    for run in runs:
        law = next((m for m in run if emerged(m)), None)
        settles = settling(run)
        ratio = law["D"][-1] / run[-1]["D"][-1] if law else math.nan
        right &= law is not None and EARLIER * law["epoch"] <= settles and ratio >= STILL
        laws.append(law["epoch"] if law else math.nan)
        settled.append(settles)
        ratios.append(ratio)
    return Verdict(
        "16",
        "the law emerges earlier than neural collapse; D of the last layer falls to the end",
        f"r at most {HOLDS} with at most {EMERGED} of D left, in at most 1/{EARLIER} of the time "
        f"after which NC1 stays within 1.5 times its end, with last D at least {STILL} times its",
        f"epoch {span(laws)} against {span(settled)}; last D is then {span(ratios)} times its end",
        right,
    )


def needed(complete: list[Series], without: dict[str, list[Series]]) -> Verdict:
    """Claim 30: the same training gives the law, and none without ReLU or BatchNorm."""
    r = {kind: column([run[-1] for run in runs], "pearson_r") for kind, runs in without.items()}
    left = {kind: column([run[-1] for run in runs], "total") for kind, runs in without.items()}
    numbers = [f"r {span(column([run[-1] for run in complete], 'pearson_r'))} with both"]
    numbers += [f"{span(r[k])} {WITHOUT[k]} (left of D: {span(left[k])})" for k in without]
    return Verdict(
        "30",
        "nonlinearity is crucial; without BatchNorm or in a linear network there is no law",
        f"r is at most {HOLDS} with both; without either it is above {ABSENT} or undefined, or "
        "more than half of D is left",
        ", ".join(numbers),
        all(run[-1]["pearson_r"] <= HOLDS for run in complete)
        and all(absent(run[-1]) for runs in without.values() for run in runs),
    )


def absent(measured: dict[str, Any]) -> bool:
    """Whether the law clearly fails: ln D is not a line, D is not halved, or D is undefined.

    D must be halved because the ln D of few layers may form a line by chance.
    """
    r, total = number(measured["pearson_r"]), number(measured["total"])
    return math.isnan(r) or r > ABSENT or total > 0.5


def emerged(measured: dict[str, Any]) -> bool:
    """Whether the law holds and separates: r alone does not say how much."""
    return number(measured["pearson_r"]) <= HOLDS and number(measured["total"]) <= EMERGED


def settling(run: Series) -> float:
    """The first epoch from which NC1 stays within 1.5 times its last value."""
    end = number(run[-1]["nc1"])
    away = [m["epoch"] for m in run if not number(m["nc1"]) <= 1.5 * end]
    return next((m["epoch"] for m in run if m["epoch"] > max(away, default=-1)), math.nan)


def column(measured: list[dict[str, Any]], key: str) -> list[float]:
    """One value of each measurement."""
    return [number(each[key]) for each in measured]


def draw_epochs(axes: Axes, run: Series) -> None:
    """Draw D against depth, one line per epoch of the talk's panels, from dark to light."""
    shown = [each for each in run if each["epoch"] in TALK]
    shades = colormaps["viridis"](torch.linspace(0, 0.9, len(shown)).numpy())
    for shade, each in zip(shades, shown, strict=True):
        label = f"{each['epoch']:g}"
        axes.plot(range(len(each["D"])), each["D"], "o-", color=shade, markersize=4, label=label)
    axes.set_title("during training")
    axes.set_ylabel("separation fuzziness $D$")
    axes.legend(title="epochs completed", ncols=3, fontsize="small", loc="lower left")


def draw_last_layer(axes: Axes, runs: list[Series]) -> None:
    """Draw D of the last layer over epochs, and where the law has emerged."""
    for run in runs:
        trained = [each for each in run if each["epoch"] > 0]
        epochs = [each["epoch"] for each in trained]
        axes.plot(epochs, [each["D"][-1] for each in trained], ".-", color=BLUE, linewidth=1)
        law = next((each for each in run if emerged(each)), None)
        if law:
            axes.plot([law["epoch"]], [law["D"][-1]], "*", color=ORANGE, markersize=13, zorder=3)
    axes.plot([], [], "*", color=ORANGE, markersize=13, label="the law has emerged")
    axes.set_title(f"last layer, {len(runs)} seed{'s' * (len(runs) > 1)}")
    logarithmic(axes.xaxis)
    axes.set_xlabel("epochs completed")
    axes.legend(fontsize="small")


def draw(runs: list[Series]) -> Figure:
    """Draw D against depth at the talk's epochs and at the end, and of the last layer."""
    figure = Figure(figsize=(13.2, 4.2), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True)
    draw_epochs(left, runs[0])
    draw_law(middle, torch.tensor(runs[0][-1]["D"]))
    middle.set_title(f"after {runs[0][-1]['epoch']:g} epochs")
    draw_last_layer(right, runs)
    for axes in (left, middle):
        axes.set_xlabel("layer (0: raw input)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, middle, right):
        logarithmic(axes.yaxis)
        axes.grid(True, which="major", alpha=0.3)
    figure.suptitle("The law of equi-separation on FashionMNIST, 8 layers, Adam")
    return figure


def measure(options: argparse.Namespace) -> Run:
    """Train the network with each seed, and without ReLU and without BatchNorm with the first."""
    epochs = EPOCHS // 6 if options.short else EPOCHS
    kinds = {"complete": {}, "linear": {"nonlinear": False}, "no_batch_norm": {"batch_norm": False}}
    values: dict[str, Any] = {"epochs": epochs}
    for kind, left_out in kinds.items():
        values[kind] = {
            str(seed): train(
                Setting(epochs=epochs, seed=seed, **left_out), MEASURED, folder=options.data
            )
            # what is left out is missed by so much that one seed shows it
            for seed in (options.seeds if kind == "complete" else options.seeds[:1])
        }
    until_5 = {s: [m for m in run if m["epoch"] <= 5] for s, run in values["complete"].items()}
    controls = {
        "the network without ReLU": {"epochs": epochs, "complete": values["linear"]},
        "the network after 5 epochs": {"epochs": epochs, "complete": until_5},
        "nothing left out": values | dict.fromkeys(WITHOUT, values["complete"]),
    }
    stated = asdict(Setting(epochs=epochs))
    setting = {name: stated[name] for name in STATED} | {"learning rate": LEARNING_RATES["adam"][8]}
    data = {"data": "FashionMNIST, 100 images per class, 10 x 10", "BatchNorm": "batch statistics"}
    if options.short:
        data["form"] = "--short"
    return Run(
        values,
        controls,
        setting | data,
        options.seeds,
        "The emergence and D of the last layer are shown here in the network of 8 layers, in the "
        "talk in one of 20.",
        [] if options.short else [f"{NAME}.png"],  # docs/figures has that of the long form
    )


def main() -> int:
    """Run the example; return 0 if all claims are true."""
    parser = options_of(__doc__, seeds=(0, 1, 2), fashion_mnist=True, short="one seed, 100 epochs")
    options = parsed(parser)
    if options.short:
        options.seeds = options.seeds[:1]
    run = measure(options)
    save(draw(list(run.values["complete"].values())), options.output, NAME)
    return 0 if conclude(NAME, judge, run, results_folder(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
