"""The quantities of the law of equi-separation: a row each."""

from typing import NamedTuple

from torch import Tensor

from lightning_nc.functional.separation import (
    SeparationLaw,
    fuzziness_of,
    separation_ability,
)
from lightning_nc.measures.quantity import Curve, Panel, Quantity


class Separation(NamedTuple):
    """What the rows are read off.

    Attributes:
        D: Separation fuzziness at each point in depth, shape ``(T,)``.
        law: The line through ln D; NaN where there is none.
    """

    D: Tensor
    law: SeparationLaw


QUANTITIES = (
    Quantity(
        "rho",
        "rho",
        "Decay ratio rho",
        "Every layer multiplies the separation fuzziness D by about this much.",
        ideal="below 1, small",
        worry="At 1 or above, depth does not separate the classes.",
        best="low",
        worry_above=1.0,
        chart=Curve(
            Panel(
                "Decay ratio rho",
                "Every layer multiplies D by about rho. At 1 depth does not separate the classes.",
                references=(("no separation", 1.0),),
            ),
            r"$\rho$",
        ),
        headline=True,
        of=lambda found: found.law.rho,
    ),
    Quantity(
        "pearson_r",
        "r",
        "Straightness r",
        "Correlation of ln D with depth: how nearly every layer contributes the same.",
        ideal="-1",
        worry="Above -0.9 some layers do much more than others; above 0 depth mixes the classes.",
        caveat="It says nothing of how much is separated: read it with rho.",
        best="low",
        worry_above=-0.9,
        chart=Curve(
            Panel(
                "Straightness r",
                "Correlation of ln D with depth; -1 is a straight line. The paper has "
                "r = -0.997 for a network of 8 layers on FashionMNIST, with batch statistics "
                "(He & Su, PNAS 2023).",
                references=(("the paper's $-0.997$", -0.997),),
            ),
            "r",
        ),
        headline=True,
        of=lambda found: found.law.pearson_r,
    ),
    Quantity(
        "half_life",
        "t_1/2",
        "Half-life",
        "Number of layers in which D halves, ln 2 / ln(1/rho).",
        ideal="small, positive",
        worry="If it is negative, D doubles in as many layers.",
        best="low and positive",
        worry_below=0.0,
        chart=Curve(
            Panel("Half-life", "Number of layers in which D halves; negative if it grows."),
            "layers",
        ),
        of=lambda found: found.law.half_life,
    ),
    Quantity(
        "total",
        "R",
        "D last / D first",
        "What is left of the input's fuzziness after all layers.",
        ideal="0",
        worry="At 1 or above, the last layer is no clearer than the input.",
        best="low",
        worry_above=1.0,
        of=lambda found: separation_ability(found.D),
    ),
)


LAYER_QUANTITIES = (
    Quantity(
        "",
        "D",
        "D",
        "Separation fuzziness: noise within classes along the directions in which classes "
        "differ, in units of their differences.",
        ideal="0",
        worry="If it is above that of the layer before.",
        caveat="It depends on the samples per class: compare only at equal numbers.",
        best="low",
        chart=Curve(
            Panel(
                "D at each layer",
                "Falls with depth where layers separate the classes.",
                logarithmic=True,
            ),
            "D",
        ),
        of=fuzziness_of,
    ),
)
