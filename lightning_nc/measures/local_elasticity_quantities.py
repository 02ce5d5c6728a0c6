"""The quantities of local elasticity, one row each."""

from lightning_nc.functional.local_elasticity import (
    ClassEffects,
    class_effects,
    relative_ratio,
)
from lightning_nc.functional.step_similarity import relative_of
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
    "Mean change of a logit per unit step; classes separate where it is larger within them than "
    "between them.",
    references=(("", 0.0),),
)


def _effects(found: KernelAnswer) -> ClassEffects:
    """Effects of a step on one output, averaged over the outputs."""
    return class_effects(found.kernel / found.num_outputs, found.labels)


def _effects_of_loss(found: KernelAnswer) -> ClassEffects | None:
    """Effects of a step on the loss, relative to its effect on the sample itself."""
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
        function="functional.relative_ratio",
        of=lambda found: relative_ratio(found.kernel, found.labels),
    ),
    Quantity(
        "relative_ratio_self_pairs",
        "",
        "Ratio with self pairs",
        "The relative ratio if each sample also counts as a pair with itself.",
        ideal="1",
        worry="If it is high and the ratio without self pairs is not: each sample is learned by "
        "itself.",
        best="high",
        chart=Curve(_RATIO, "with self pairs", compared=False),
        function="functional.relative_ratio",
        of=lambda found: relative_ratio(found.kernel, found.labels, self_pairs=True),
    ),
    Quantity(
        "intra",
        "alpha",
        "Effect within classes",
        "Mean change of a logit at other samples of the same class, per unit step.",
        worry="If it is not above the effect between classes: classes do not separate.",
        caveat="Being above the effect between classes is no evidence of local elasticity: that is "
        "so in untrained networks, too.",
        chart=Curve(_EFFECT, "within classes"),
        function="functional.class_effects",
        of=lambda found: _effects(found).intra,
    ),
    Quantity(
        "inter",
        "beta",
        "Effect between classes",
        "Mean change of a logit at samples of other classes, per unit step.",
        worry="If it reaches the effect within classes.",
        chart=Curve(_EFFECT, "between classes", dashed=True),
        function="functional.class_effects",
        of=lambda found: _effects(found).inter,
    ),
    Quantity(
        "relative_similarity_intra",
        "S_rel",
        "Step on the loss, within",
        "Mean change of the outputs at other samples of the same class by a step on the loss of "
        "one sample, divided by the change at that sample.",
        ideal="1",
        worry="If it is not above the value between classes.",
        caveat="Logged only with relative_similarity=True.",
        function="functional.relative_similarity",
        of=lambda found: (effects := _effects_of_loss(found)) and effects.intra,
    ),
    Quantity(
        "relative_similarity_inter",
        "S_rel",
        "Step on the loss, between",
        "Mean change of the outputs at samples of other classes by a step on the loss of one "
        "sample, divided by the change at that sample.",
        ideal="small",
        worry="If it reaches the value within classes.",
        caveat="Logged only with relative_similarity=True.",
        function="functional.relative_similarity",
        of=lambda found: (effects := _effects_of_loss(found)) and effects.inter,
    ),
    Quantity(
        "relative_similarity_seconds",
        "",
        "Seconds of steps on the loss",
        "Duration of the steps on the loss, included in the seconds of the measurement.",
        worry="If it is a large part of an epoch: leave relative_similarity out.",
        caveat="Logged only with relative_similarity=True.",
        of=lambda found: None if found.moves is None else found.seconds_of_moves,
    ),
)
