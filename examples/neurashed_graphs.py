"""The two graphs of the neurashed example, training on them, and the numbers derived for them."""

import math

import torch
from torch import Tensor

from lightning_nc.theory.neurashed import Neurashed, expected_amplification

TYPES = ("12", "45", "23", "56")  # in each of the classes x and y
DECAY, STEPS, THRESHOLD = 0.002, 3200, 0.4
# b t at which a ratio of amplifications falls to the threshold (see Neurashed.bits): in the middle
# (1 - e^(-b t / 2)) / (b t), at the bottom (1 - u^3) / (3 (1 - u^2)) with u = e^(-b t / 4)
FALL = {"middle": 0.9284, "bottom": 4 * math.log(10 / (1 + math.sqrt(21)))}
SHARED_BY = (4, 2, 1)  # how many of the 8 types have a feature


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


def step_on(kind: str, d: int, N: int) -> tuple[Neurashed, float, float]:
    """Step on a type after N steps on each; also return the rises of cat and plane."""
    neurashed = animals(d)
    for _ in range(N):
        for each in neurashed.graph.types:
            neurashed.step(each)
    _, *before = logits_of(neurashed)
    neurashed.step(kind)
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
        self.amplification = {shared_by: [0.0] for shared_by in SHARED_BY}
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
