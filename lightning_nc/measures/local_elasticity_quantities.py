"""The quantities of local elasticity: a row each."""

from lightning_nc.functional.local_elasticity import (
    ClassEffects,
    class_effects,
    relative_of,
    relative_ratio,
)
from lightning_nc.measures.quantity import Curve, Panel, Quantity
from lightning_nc.passes.request import KernelAnswer

_RATIO = Panel(
    "Relative ratio",
    "How much of a gradient step's effect stays in the sample's own class; at 0.5 there is no "
    "local elasticity (He & Su, ICLR 2020).",
    references=(("no local elasticity", 0.5),),
)
_EFFECT = Panel(
    "Effect of a step",
    "Mean change of a logit per unit of step; classes separate where the first is larger.",
    references=(("", 0.0),),
)


def _effects(found: KernelAnswer) -> ClassEffects:
    """Of a step on an output, averaged over the outputs."""
    return class_effects(found.kernel / found.num_outputs, found.labels)


def _effects_of_loss(found: KernelAnswer) -> ClassEffects | None:
    """Of a step on the loss, relative to what it does to the sample itself."""
    if found.moves is None:
        return None
    return class_effects(relative_of(found.moves), found.labels)


QUANTITIES = (
    Quantity(
        "relative_ratio",
        "",
        "Relative ratio",
        "How much of a gradient step's effect stays in the sample's own class: 1/2 without "
        "local elasticity, up to 1.",
        ideal="1",
        worry="At 0.5 or below, a step moves all classes alike: no local elasticity.",
        best="high",
        worry_below=0.5,
        chart=Curve(_RATIO, "different samples"),
        headline=True,
        of=lambda found: relative_ratio(found.kernel, found.labels),
    ),
    Quantity(
        "relative_ratio_self_pairs",
        "",
        "Ratio with self pairs",
        "The relative ratio where a sample with itself counts as a pair.",
        ideal="1",
        worry="If it is high and the ratio without self pairs is not: each sample is learned "
        "by itself.",
        best="high",
        chart=Curve(_RATIO, "with self pairs", compared=False),
        of=lambda found: relative_ratio(found.kernel, found.labels, self_pairs=True),
    ),
    Quantity(
        "intra",
        "alpha",
        "Effect within classes",
        "Mean change of a logit at samples of the same class, per unit of step.",
        worry="If it is not above the effect between classes: classes do not separate.",
        chart=Curve(_EFFECT, "within classes"),
        of=lambda found: _effects(found).intra,
    ),
    Quantity(
        "inter",
        "beta",
        "Effect between classes",
        "Mean change of a logit at samples of other classes, per unit of step.",
        worry="If it reaches the effect within classes.",
        chart=Curve(_EFFECT, "between classes", dashed=True),
        of=lambda found: _effects(found).inter,
    ),
    Quantity(
        "relative_similarity_intra",
        "S_rel",
        "Step on the loss, within",
        "Mean move of samples of the same class by a step on the loss of one, by how far it "
        "moves that sample itself.",
        ideal="1",
        worry="If it is not above that between classes.",
        caveat="Logged with relative_similarity=True.",
        of=lambda found: (effects := _effects_of_loss(found)) and effects.intra,
    ),
    Quantity(
        "relative_similarity_inter",
        "S_rel",
        "Step on the loss, between",
        "Mean move of samples of other classes by a step on the loss of one, by how far it "
        "moves that sample itself.",
        ideal="small",
        worry="If it reaches that within classes.",
        caveat="Logged with relative_similarity=True.",
        of=lambda found: (effects := _effects_of_loss(found)) and effects.inter,
    ),
    Quantity(
        "relative_similarity_seconds",
        "",
        "Seconds of steps on the loss",
        "What steps on the loss cost, within the seconds of the measurement.",
        worry="If it is a large part of an epoch: leave relative_similarity out.",
        caveat="Logged with relative_similarity=True.",
        of=lambda found: None if found.moves is None else found.seconds_of_moves,
    ),
)
