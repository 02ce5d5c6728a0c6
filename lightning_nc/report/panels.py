"""Which curves the page shows, and what stands below them."""

from typing import NamedTuple


class Curve(NamedTuple):
    """One quantity in a panel.

    Attributes:
        name: What follows ``family/probe/`` in its key.
        label: In the legend.
        dashed: Whether to dash it.
        compared: Whether it is drawn where several runs are overlaid.
    """

    name: str
    label: str
    dashed: bool = False
    compared: bool = True


class Panel(NamedTuple):
    """Curves over epochs.

    Attributes:
        title: Above it.
        curves: Those that share a colour come in pairs, the second dashed.
        caption: Below it.
        logarithmic: Whether values are.
        references: Horizontal lines, by what they say.
        terminal: Whether to mark the terminal phase of training.
    """

    title: str
    curves: tuple[Curve, ...]
    caption: str
    logarithmic: bool = False
    references: tuple[tuple[str, float], ...] = ()
    terminal: bool = False


_SEPARATION = (
    Panel(
        "Decay ratio rho",
        (Curve("rho", r"$\rho$"),),
        "Every layer multiplies D by about rho. At 1 depth does not separate the classes.",
        references=(("no separation", 1.0),),
    ),
    Panel(
        "Straightness r",
        (Curve("pearson_r", "r"),),
        "Correlation of ln D with depth; -1 is a straight line. The paper has r = -0.997 for a "
        "network of 8 layers on FashionMNIST (He & Su, PNAS 2023).",
        references=(("the paper's $-0.997$", -0.997),),
    ),
)
_NC = (
    Panel(
        "NC1: samples collapse to class means",
        (Curve("nc1", "NC1"), Curve("cdnv", "CDNV", compared=False)),
        "Within-class variability against the distances between classes.",
        logarithmic=True,
        terminal=True,
    ),
    Panel(
        "NC2: means and rows form a simplex",
        (
            Curve("nc2_equinorm_means", "norms: means", compared=False),
            Curve("nc2_equinorm_weights", "rows", dashed=True, compared=False),
            Curve("nc2_equiangularity_means", "angles: means", compared=False),
            Curve("nc2_equiangularity_weights", "rows", dashed=True, compared=False),
            Curve("nc2_maximal_angle_means", "widest: means", compared=False),
            Curve("nc2_maximal_angle_weights", "rows", dashed=True, compared=False),
            Curve("nc2_etf_error", "simplex error"),
        ),
        "Norms become equal, and angles equal and as wide as possible, of class means (solid) and "
        "the classifier's rows (dashed).",
        logarithmic=True,
        terminal=True,
    ),
    Panel(
        "NC3: classifier and means agree",
        (Curve("nc3", "NC3"),),
        "Distance between the classifier's rows and the class means, both scaled to unit size.",
        logarithmic=True,
        terminal=True,
    ),
    Panel(
        "NC4: the nearest class mean decides",
        (Curve("nc4", "NC4"),),
        "Share of samples that the classifier does not give to the nearest class mean.",
        logarithmic=True,
        terminal=True,
    ),
)
_MINORITY = (
    Panel(
        "Cosine of rare classes",
        (
            Curve("cos_weights", "rows"),
            Curve("predicted_cos", "predicted", dashed=True),
            Curve("cos_means", "class means", compared=False),
            Curve("cos_majority_weights", "frequent rows", compared=False),
        ),
        "At 1 the classifier's rows for rare classes are one: these classes are not told apart; "
        "-1/(K-1) is where they are if K classes are balanced. "
        "Predicted is the layer-peeled model's, if it was asked for (Fang et al., PNAS 2021).",
        references=(("merged", 1.0),),
    ),
    Panel(
        "Rare against frequent classes",
        (
            Curve("minority_accuracy", "accuracy on rare classes"),
            Curve("norm_ratio", "norm ratio", compared=False),
        ),
        "Mean accuracy over rare classes on the probe, and the norm of their rows by that of "
        "frequent ones; both are ideally 1.",
        references=(("ideal", 1.0),),
    ),
)
_ELASTICITY = (
    Panel(
        "Relative ratio",
        (
            Curve("relative_ratio", "different samples"),
            Curve("relative_ratio_self_pairs", "with self pairs", compared=False),
        ),
        "How much of a gradient step's effect stays in the sample's own class; at 0.5 there is no "
        "local elasticity (He & Su, ICLR 2020).",
        references=(("no local elasticity", 0.5),),
    ),
    Panel(
        "Effect of a step",
        (Curve("intra", "within classes"), Curve("inter", "between classes", dashed=True)),
        "Mean change of a logit per unit of step; classes separate where the first is larger.",
        references=(("", 0.0),),
    ),
)
_COST = Panel(
    "Seconds per measurement",
    (Curve("seconds", "seconds"),),
    "What each measurement took; callbacks that share one each say what it took in all.",
    logarithmic=True,
)


def panels(family: str) -> tuple[Panel, ...]:
    """The panels of a family over epochs.

    Args:
        family: ``"separation"``, ``"nc"``, ``"minority"`` or ``"elasticity"``.
    """
    of_family = {
        "separation": _SEPARATION,
        "nc": _NC,
        "minority": _MINORITY,
        "elasticity": _ELASTICITY,
    }
    return (*of_family[family], _COST)
