r"""Three properties of neural networks, in a model small enough to derive them by hand.

A neurashed is a graph of features. Those that a batch activates are amplified, the others fade.
This rule alone implies local elasticity, implicit regularisation and the information bottleneck::

    python examples/neurashed.py

The graphs and the numbers are derived in the docstrings of ``lightning_nc/theory/neurashed.py``.
In the first graph, tiger, cat and plane share a feature with two children, and tiger and cat
another with three: after N steps on each, a step on tiger raises the logits of cat and plane by 5 N
and 2 N, for every N. With d more levels, where tiger and cat share one feature each, the ratio
grows. In the second graph, two classes have four types each. Controls are a step on plane, and full
batches. The exit status is 1 if a number is not as derived.

Source:
    Su (2021), "Envisioning future deep learning theories: some basic concepts and characteristics",
    arXiv:2112.09741.
"""

import argparse
import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from example_setup import BLUE, GREEN, ORANGE, options_of, parsed, results_folder, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from neurashed_graphs import (
    DECAY,
    FALL,
    STEPS,
    Training,
    expected,
    logits_of,
    ratio_of,
    step_on,
)
from verdicts import Run, Values, Verdict, conclude, number, span

NAME = "neurashed"
DEEPER, LEARNED = (0, 1, 2, 3), (1, 10, 100)  # more levels d, steps N on each type
NOTE = "batches of one sample of each class;\ndotted: the derived steps"
COLORS = {4: BLUE, 2: GREEN, 1: ORANGE}  # of a feature, by how many of the 8 types have it
EXACT, OF_GROWTH, OF_FALL = 1e-6, 0.03, 0.05  # relative tolerances


def judge(values: Values) -> list[Verdict]:
    """Judge rises of logits, and amplifications and bits by seed, by the derived numbers."""
    rises: Mapping[str, Mapping[str, list[float]]] = values["rises"]
    ratios = {N: [cat / plane for cat, plane in by_d.values()] for N, by_d in rises.items()}
    derived = {N: ratio_of(torch.tensor(DEEPER).double(), int(N)).tolist() for N in ratios}
    first = [by_d[0] for by_d in ratios.values()]
    growth = [each for seed in values["growth"].values() for each in seed.values()]
    factors = [each["common"] / each["rare"] for each in growth]
    expectations = [
        expected(1 / 2, each["step"]) / expected(1 / 8, each["step"]) for each in growth
    ]
    bits = [level for seed in values["bits"].values() for level in seed.items()]
    late = [number(level["fall"]) * DECAY / FALL[name] for name, level in bits]
    right = [
        (level["before"], level["after"]) == {"bottom": (3, 2), "middle": (2, 1)}[name]
        for name, level in bits
    ]
    return [
        Verdict(
            "46",
            "a step on tiger changes the logits of cat and plane as 5 : 2, the more so with depth",
            f"5 : 2 after N = {', '.join(rises)} steps on each, and as derived with more levels",
            f"{span(first)}; with 3 more levels {span([by_d[-1] for by_d in ratios.values()])}",
            all(agree(ratio, 5 / 2, EXACT) for ratio in first)
            and all(
                agree(*pair, EXACT)
                for N in ratios
                for pair in zip(ratios[N], derived[N], strict=True)
            )
            and all(below < above for by_d in ratios.values() for below, above in pairwise(by_d)),
        ),
        Verdict(
            "47",
            "with small batches common features grow faster than rare ones",
            "with single samples, amplification of features of 4 of 8 types over those of 1 is as "
            f"derived within {OF_GROWTH:.0%}, after the first epoch and the last",
            f"{span(factors[::2])} and {span(factors[1::2])} times",
            all(agree(*pair, OF_GROWTH) for pair in zip(factors, expectations, strict=True)),
        ),
        Verdict(
            "48",
            "the bottom level has 3 bits, later 2, the middle level 2, later 1",
            f"so it is, and the steps of the fall are as derived within {OF_FALL:.0%}",
            f"{sum(right)} of {len(right)} levels; steps {span(late)} times those derived",
            all(right) and all(agree(step, 1, OF_FALL) for step in late),
        ),
    ]


def agree(measured: float, derived: float, tolerance: float) -> bool:
    """Whether two numbers agree up to a relative tolerance."""
    return abs(measured - derived) <= tolerance * derived


def rises_of(kind: str) -> dict[str, dict[str, list[float]]]:
    """The rises of cat and plane by a step on a type, by N and d."""
    return {str(N): {str(d): list(step_on(kind, d, N)[1:]) for d in DEEPER} for N in LEARNED}


def growth_of(training: Training) -> dict[str, dict[str, float]]:
    """Steps and amplifications of common and rare features after the first epoch and the last."""
    lambda_ = training.amplification
    return {
        when: {
            "step": training.steps[epoch],
            "common": lambda_[4][epoch],
            "rare": lambda_[1][epoch],
        }
        for when, epoch in (("first epoch", 1), ("last epoch", -1))
    }


def bits_of(training: Training) -> dict[str, dict[str, float]]:
    """The bits of both levels before training and after the last epoch, and when one is lost."""
    before, after = training.bits[0], training.bits[-1]
    return {
        name: {"before": before[level], "after": after[level], "fall": training.fall(level)}
        for level, name in enumerate(("bottom", "middle"))
    }


def draw_graph(axes: Axes) -> None:
    """Draw the graph of the three types, one step on each and one more on tiger behind it."""
    neurashed, _, _ = step_on("tiger", d=0, N=1)
    places = {
        node: (9 * (i + 0.5) / len(level), 1.2 * height)
        for height, level in enumerate(neurashed.graph.levels)
        for i, node in enumerate(level)
    }
    for (below, level), C in zip(
        pairwise(neurashed.graph.levels), neurashed.graph.children, strict=True
    ):
        for j, i in C.nonzero().tolist():
            (x, y), (x_below, y_below) = places[level[j]], places[below[i]]
            axes.plot([x, x_below], [y, y_below], color="0.75", linewidth=1, zorder=1)
    of_tiger = torch.cat([A[neurashed.graph.index("tiger")] for A in neurashed.graph.active])
    inputs = len(neurashed.graph.levels[0])
    lambdas = torch.cat(neurashed.amplification).tolist()
    for n, ((node, (x, y)), lambda_) in enumerate(zip(places.items(), lambdas, strict=True)):
        color = BLUE if of_tiger[n] else "0.45"
        axes.plot([x], [y], "o", color=color, markersize=10 if n < inputs else 22, zorder=2)
        if n < inputs:
            axes.text(x, y - 0.18, node, ha="center", va="top", rotation=45, fontsize="small")
            continue
        axes.text(x, y, f"{lambda_:g}", color="white", ha="center", va="center_baseline")
        axes.text(
            *(x, y + 0.27, node),
            ha="center",
            bbox={"color": "white", "alpha": 0.8, "pad": 0.5},
        )
    _, cat, plane = logits_of(neurashed)
    for x, text in (
        (0, f"cat: 13 $\\to$ 1 (2 $\\cdot$ 4 + 3 $\\cdot$ 3 + 1) = {cat:g}"),
        (5, f"plane: 7 $\\to$ 1 (2 $\\cdot$ 4 + 1) = {plane:g}"),
    ):
        axes.text(x, -1.15, text)
    axes.set_xlim(0, 9)
    axes.set_ylim(-1.2, 3)
    axes.axis("off")
    axes.set_title(r"amplifications $\lambda$ after a step on each type and one on tiger")


def draw_elasticity(axes: Axes) -> None:
    """Draw the ratio of the rises of cat and plane against depth."""
    d = torch.linspace(DEEPER[0], DEEPER[-1], 100, dtype=torch.float64)
    for N, color in zip(LEARNED, (BLUE, GREEN, ORANGE), strict=True):
        axes.plot(d, ratio_of(d, N), color=color, linewidth=1)
        for depth in DEEPER:
            _, cat, plane = step_on("tiger", depth, N)
            label = f"N = {N}" if depth == 0 else None
            axes.plot([depth], [cat / plane], "o", color=color, label=label)
    axes.annotate("5 : 2", (0, 2.5), xytext=(8, -8), textcoords="offset points")
    axes.plot([], [], color="0.3", linewidth=1, label="derived")
    axes.set_xticks(DEEPER)
    axes.set_ylim(0, 24)
    axes.set_xlabel("more levels $d$, after $N$ steps on each type")
    axes.set_ylabel("rise of cat's logit / rise of plane's")
    axes.set_title("local elasticity grows with depth")
    axes.legend(loc="upper left")


def draw_growth(axes: Axes, single: Training, full: Training) -> None:
    """Draw the amplifications of common and of rare features."""
    axes.plot(full.steps, full.amplification[1], "--", color="0.3", label="all, full batches")
    for shared_by, color in COLORS.items():
        label = f"of {shared_by} of 8 types, single samples"
        axes.plot(single.steps, single.amplification[shared_by], color=color, label=label)
        limit = shared_by / (8 - shared_by) / DECAY
        axes.axhline(limit, color=color, linewidth=1, linestyle=":")
    axes.text(STEPS - 30, 10, "dotted: the limits $(a/b)\\,p/(1-p)$", ha="right", color="0.3")
    axes.set_ylim(0, 780)
    axes.set_ylabel(r"mean amplification $\lambda$")
    axes.set_title("implicit regularisation: small batches favour common features")
    axes.legend(loc="upper right")


def draw_bits(axes: Axes, pairs: Training) -> None:
    """Draw the bits that each level tells apart."""
    levels = (("bottom", ORANGE, "-"), ("middle", GREEN, "-"), ("classes", BLUE, "--"))
    for level, (name, color, line) in enumerate(levels):
        bits = [each[level] for each in pairs.bits]
        axes.plot(pairs.steps, bits, line, color=color, linewidth=2, label=name)
        if name in FALL:
            axes.axvline(FALL[name] / DECAY, color=color, linewidth=1, linestyle=":")
    axes.text(STEPS - 30, 0.1, NOTE, ha="right", color="0.3")
    axes.set_ylim(0, 3.4)
    axes.set_yticks(range(4))
    axes.set_ylabel("bits of surviving features")
    axes.set_title("information bottleneck: rare features fade")
    axes.legend(loc="upper right")


def draw(single: Training, pairs: Training, full: Training) -> Figure:
    """Draw all four panels."""
    figure = Figure(figsize=(11, 8), dpi=120, layout="constrained")
    of_graph, of_elasticity, of_growth, of_bits = figure.subplots(2, 2).flat
    draw_graph(of_graph)
    draw_elasticity(of_elasticity)
    draw_growth(of_growth, single, full)
    draw_bits(of_bits, pairs)
    for axes in (of_growth, of_bits):
        axes.set_xlim(0, STEPS)
        axes.set_xlabel("steps")
    for axes in (of_elasticity, of_growth, of_bits):
        axes.grid(True, alpha=0.3)
    return figure


def measure(options: argparse.Namespace) -> tuple[Run, Figure]:
    """Measure with every seed; draw the first."""
    full = Training(batch_size=8)
    by_seed = {str(s): (Training(1, s), Training(2, s)) for s in options.seeds}
    values: dict[str, Any] = {
        "rises": rises_of("tiger"),
        "growth": {seed: growth_of(single) for seed, (single, _) in by_seed.items()},
        "bits": {seed: bits_of(pairs) for seed, (_, pairs) in by_seed.items()},
    }
    controls = {
        "a step on plane": values | {"rises": rises_of("plane")},
        "full batches": values
        | {
            "growth": {seed: growth_of(full) for seed in by_seed},
            "bits": {seed: bits_of(full) for seed in by_seed},
        },
    }
    settings = {
        "graphs": "those of lightning_nc/theory/neurashed.py",
        "amplification": f"grows by 1 when activated; decay {DECAY} in the second graph",
        "steps": STEPS,
        "batches": "47: single samples; 48: a sample of each class",
    }
    differs = (
        "The talk draws its graphs without all numbers: these graphs are ours, chosen so that the "
        "talk's rules give its numbers. Seeds order the samples."
    )
    run = Run(values, controls, settings, options.seeds, differs, [f"{NAME}.png"])
    return run, draw(*next(iter(by_seed.values())), full)


def main() -> int:
    """Run the example; return 0 if all numbers are as derived."""
    options = parsed(options_of(__doc__, seeds=(0, 1, 2)))
    run, figure = measure(options)
    save(figure, options.output, NAME)
    return 0 if conclude(NAME, judge, run, results_folder(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
