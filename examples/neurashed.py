r"""Three properties of neural networks, in a model small enough to derive them by hand.

A neurashed is a graph of features. Those that a batch activates are amplified, the others fade.
This rule alone implies local elasticity, implicit regularisation and the information bottleneck::

    python examples/neurashed.py

The graphs and the numbers are derived in the docstrings of ``lightning_nc/theory/neurashed.py``.
In the first graph, tiger, cat and plane share a feature with two children, and tiger and cat
another with three: after N steps on each, a step on tiger raises the logits of cat and plane by 5 N
and 2 N, for every N. With d more levels, where tiger and cat share one feature each, the ratio
grows. In the second graph, two classes have four types each. The exit status is 1 if a number is
not as derived.

Source:
    Su (2021), "Envisioning future deep learning theories: some basic concepts and characteristics",
    arXiv:2112.09741.
"""

import math
import sys
from itertools import pairwise

import torch
from example_setup import BLUE, GREEN, ORANGE, options_of, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lightning_nc.theory.neurashed import Neurashed, expected_amplification

DEEPER, LEARNED = (0, 1, 2, 3), (1, 10, 100)  # more levels d, steps N on each type
TYPES = ("12", "45", "23", "56")  # in each of the classes x and y
DECAY, STEPS, THRESHOLD = 0.002, 3200, 0.4
# b t at which a ratio of amplifications falls to the threshold (see Neurashed.bits): in the middle
# (1 - e^(-b t / 2)) / (b t), at the bottom (1 - u^3) / (3 (1 - u^2)) with u = e^(-b t / 4)
FALL = {"middle": 0.9284, "bottom": 4 * math.log(10 / (1 + math.sqrt(21)))}
NOTE = "batches of one sample of each class;\ndotted: the derived steps"
COLORS = {4: BLUE, 2: GREEN, 1: ORANGE}  # of a feature, by how many of the 8 types have it
Row = tuple[str, float, float, float]  # what, expected, measured, relative tolerance


def animals(d: int) -> Neurashed:
    """All share the outline, tiger and cat the coat and, at each of d more levels, a feature."""
    children = {
        "stripes": ["stripe"],
        "coat": ["ear", "paw", "tail"],
        "whiskers": ["whisker"],
        "outline": ["edge", "corner"],
        "hull": ["wing"],
    }
    levels: list[dict[str, list[str]]] = [{x: [] for below in children.values() for x in below}]
    levels.append(children)
    own = {"tiger": ["stripes"], "cat": ["whiskers"], "plane": ["hull", "outline"]}
    shared = ["coat", "outline"]  # by tiger and cat
    pathways: dict[str, list[str]] = {kind: [] for kind in own}
    for level in range(d + 1):
        if level > 0:
            deeper = {"tiger": ["tiger"], "cat": ["cat"], "plane": ["wing", "hull"]}
            names = {kind: [f"{x} {level}" for x in nodes] for kind, nodes in deeper.items()}
            above = {node: own[kind] for kind, nodes in names.items() for node in nodes}
            levels.append(above | {f"animal {level}": shared})
            own, shared = names, [f"animal {level}"]
        tops = {kind: own[kind] + (shared if kind != "plane" else []) for kind in own}
        for kind, nodes in tops.items():
            pathways[kind] += nodes
    levels.append(tops)
    for kind in pathways:
        pathways[kind] += [x for node in pathways[kind] for x in children.get(node, [])] + [kind]
    return Neurashed(levels, pathways, growth=1, decay=0)


def logits_of(neurashed: Neurashed) -> list[float]:
    """The logit that each type gives its own class."""
    return [float(neurashed.logits(kind)[c]) for c, kind in enumerate(neurashed.graph.types)]


def step_on_tiger(d: int, N: int) -> tuple[Neurashed, float, float]:
    """Step on tiger after N steps on each type; also return the rises of cat and plane."""
    neurashed = animals(d)
    for _ in range(N):
        for kind in neurashed.graph.types:
            neurashed.step(kind)
    _, *before = logits_of(neurashed)
    neurashed.step("tiger")
    _, *after = logits_of(neurashed)
    return neurashed, after[0] - before[0], after[1] - before[1]


def ratio_of(d: Tensor, N: int) -> Tensor:
    """The derived ratio of the rises of cat and plane."""
    return ((1 + 1 / (2 * N)) ** d * (12 * N + 5) - 12 * N) / 2


def two_classes() -> Neurashed:
    """Two classes, whose types activate the pairs 12, 23, 45 and 56 of six features."""
    levels: list[dict[str, list[str]]] = [{}, {}, {}]
    pathways = {}
    for c in "xy":
        halves = {"left": "123", "right": "456", "main": "123456"}
        levels[0] |= {c + i: [] for i in "123456"}
        levels[1] |= {c + half: [c + i for i in features] for half, features in halves.items()}
        levels[2][c] = [c + half for half in halves]
        for pair in TYPES:
            half = "left" if "2" in pair else "right"
            pathways[c + pair] = [c + pair[0], c + pair[1], c + half, c + "main", c]
    return Neurashed(levels, pathways, growth=1, decay=DECAY)


class Training:
    """Training on two classes: steps, amplifications and bits after each epoch."""

    def __init__(self, batch_size: int, seed: int = 0) -> None:
        neurashed = two_classes()
        activated_by = torch.cat([A.sum(0) for A in neurashed.graph.active])
        generator = torch.Generator().manual_seed(seed)
        self.steps = list(range(0, STEPS + 1, 8 // batch_size))
        self.bits = [neurashed.bits(THRESHOLD).tolist()]
        self.amplification = {shared_by: [0.0] for shared_by in COLORS}
        for _ in self.steps[1:]:
            # each type once, alternating between the two classes
            order = torch.stack([torch.randperm(4, generator=generator) for _ in "xy"])
            types = [
                c + TYPES[i] for pair in order.T.tolist() for c, i in zip("xy", pair, strict=True)
            ]
            for first in range(0, 8, batch_size):
                neurashed.step(*types[first : first + batch_size])
            lambda_ = torch.cat(neurashed.amplification)
            for shared_by, found in self.amplification.items():
                found.append(float(lambda_[activated_by == shared_by].mean()))
            self.bits.append(neurashed.bits(THRESHOLD).tolist())

    def fall(self, level: int) -> float:
        """The first step at which a level has lost a bit; NaN if it never does."""
        lost = (bits[level] <= self.bits[0][level] - 1 for bits in self.bits)
        return next((t for t, gone in zip(self.steps, lost, strict=True) if gone), math.nan)


def expected(p: float, steps: int) -> float:
    """Expected amplification of a feature that is activated with probability p."""
    return expected_amplification(p, steps, growth=1, decay=DECAY)


def compare(single: Training, pairs: Training, full: Training) -> list[Row]:
    """Rows of derived and measured numbers."""
    rows: list[Row] = []
    for N in LEARNED:
        for d in DEEPER:
            _, cat, plane = step_on_tiger(d, N)
            derived = float(ratio_of(torch.tensor(d, dtype=torch.float64), N))
            rows.append((f"tiger raises cat : plane, N = {N}, d = {d}", derived, cat / plane, 0))
    for when, epoch in (("first", 1), ("last", -1)):
        t, lambda_ = single.steps[epoch], single.amplification
        derived = expected(1 / 2, t) / expected(1 / 8, t)
        measured = lambda_[4][epoch] / lambda_[1][epoch]
        rows.append((f"common : rare, {when} epoch, single samples", derived, measured, 0.03))
    measured = full.amplification[4][-1] / full.amplification[1][-1]
    rows.append(("common : rare, last epoch, full batches", 1, measured, 0))
    for level, (name, before, after) in enumerate((("bottom", 3, 2), ("middle", 2, 1))):
        rows += [
            (f"bits of the {name} level before training", before, pairs.bits[0][level], 0),
            (f"bits of the {name} level, last epoch", after, pairs.bits[-1][level], 0),
            (
                f"    step of the fall, in units of 1/b = {1 / DECAY:g}",
                FALL[name],
                pairs.fall(level) * DECAY,
                0.05,
            ),
            ("    with full batches, last epoch", before, full.bits[-1][level], 0),
        ]
    return rows


def print_table(rows: list[Row]) -> bool:
    """Print expected and measured numbers; return whether all agree."""
    print(f"{'':46}{'expected':>10}{'measured':>10}")
    right = True
    for what, derived, measured, tolerance in rows:
        agrees = abs(measured - derived) <= tolerance * derived + 1e-9
        right &= agrees
        print(f"{what:46}{derived:10.4f}{measured:10.4f}{'' if agrees else '   NO'}")
    print(f"{'yes' if right else 'NO '}: all numbers are as derived")
    return right


def draw_graph(axes: Axes) -> None:
    """Draw the graph of the three types, one step on each and one more on tiger behind it."""
    neurashed, _, _ = step_on_tiger(d=0, N=1)
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
            _, cat, plane = step_on_tiger(depth, N)
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


def main() -> int:
    """Run the example; return 0 if all numbers are as derived."""
    options = options_of(__doc__).parse_args()
    single, pairs, full = Training(batch_size=1), Training(batch_size=2), Training(batch_size=8)
    right = print_table(compare(single, pairs, full))
    save(draw(single, pairs, full), options.output, "neurashed")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
