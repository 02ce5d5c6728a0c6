"""What `LocalElasticity` logs."""

from lightning_nc.report.quantities.quantity import Quantity, high

QUANTITIES = (
    Quantity(
        "relative_ratio",
        "Relative ratio",
        "How much of a gradient step's effect stays in the sample's own class.",
        "1",
        "At 0.5 or below, a step moves all classes alike: no local elasticity.",
        high,
        lambda ratio: ratio <= 0.5,
    ),
    Quantity(
        "relative_ratio_self_pairs",
        "Ratio with self pairs",
        "The same where a sample with itself counts as a pair.",
        "1",
        "If it is high and the ratio without self pairs is not: each sample is learned by itself.",
        high,
    ),
    Quantity(
        "intra",
        "Effect within classes",
        "Mean change of a logit at samples of the same class, per unit of step.",
        "",
        "If it is not above the effect between classes.",
    ),
    Quantity(
        "inter",
        "Effect between classes",
        "Mean change of a logit at samples of other classes, per unit of step.",
        "",
        "If it reaches the effect within classes.",
    ),
    Quantity(
        "relative_similarity_intra",
        "Step on the loss, within",
        "Mean relative move of samples of the same class, by a step on the loss of one.",
        "1",
        "If it is not above that between classes.",
    ),
    Quantity(
        "relative_similarity_inter",
        "Step on the loss, between",
        "Mean relative move of samples of other classes, by a step on the loss of one.",
        "small",
        "If it reaches that within classes.",
    ),
)
