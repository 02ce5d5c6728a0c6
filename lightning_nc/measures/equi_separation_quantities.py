"""The quantities of the law of equi-separation, one row each."""

from lightning_nc.functional.separation import fuzziness_of, separation_ability
from lightning_nc.measures.quantity import Curve, Panel, Quantity

QUANTITIES = (
    Quantity(
        "rho",
        "rho",
        "Decay ratio rho",
        "Every layer multiplies the separation fuzziness D by about this factor.",
        ideal="below 1, small",
        worry="At 1 or above, depth does not separate the classes.",
        best="low",
        worry_above=1.0,
        chart=Curve(
            Panel(
                "Decay ratio rho",
                "Every layer multiplies D by about rho; at 1, depth does not separate the classes.",
                references=(("no separation", 1.0),),
            ),
            r"$\rho$",
        ),
        headline=True,
        function="functional.separation_law",
        of=lambda found: found.law.rho,
    ),
    Quantity(
        "pearson_r",
        "r",
        "Straightness r",
        "Correlation of ln D with depth: how evenly the layers contribute.",
        ideal="-1",
        worry="Above -0.9, some layers do much more than others; above 0, depth mixes the classes.",
        caveat="It does not say how much is separated: read it together with rho.",
        best="low",
        worry_above=-0.9,
        chart=Curve(
            Panel(
                "Straightness r",
                "Correlation of ln D with depth; -1 is a straight line. The paper reports "
                "r = -0.997 for a network of 8 layers on FashionMNIST, with batch statistics "
                "(He & Su, PNAS 2023).",
                references=(("the paper's $-0.997$ (batch statistics)", -0.997),),
            ),
            "r",
        ),
        headline=True,
        function="functional.separation_law",
        of=lambda found: found.law.pearson_r,
    ),
    Quantity(
        "half_life",
        "t½",
        "Half-life",
        "Number of layers over which D halves, ln 2 / ln(1/rho).",
        ideal="small, positive",
        worry="If it is negative, D doubles over that many layers. Near rho = 1 it jumps between "
        "large numbers of either sign: read rho instead.",
        best="low and positive",
        worry_below=0.0,
        chart=Curve(
            Panel("Half-life", "Number of layers over which D halves; negative if D grows."),
            "layers",
        ),
        function="functional.separation_law",
        of=lambda found: found.law.half_life,
    ),
    Quantity(
        "total",
        "R",
        "D last / D first",
        "What remains of D after all layers: D of the last layer divided by D of the first.",
        ideal="0",
        worry="At 1 or above, the last layer separates the classes no better than the first.",
        best="low",
        worry_above=1.0,
        function="functional.separation_ability",
        of=lambda found: separation_ability(found.values),
    ),
)


LAYER_QUANTITIES = (
    Quantity(
        "",
        "D",
        "D",
        "Separation fuzziness: noise within classes along the directions in which class means "
        "differ, in units of their differences.",
        ideal="0",
        worry="If it is larger than at the layer before.",
        caveat="It depends on the number of samples per class: compare only at equal numbers.",
        best="low",
        chart=Curve(
            Panel(
                "D at each layer",
                "D falls with depth where layers separate the classes.",
                logarithmic=True,
            ),
            "D",
        ),
        function="functional.separation_fuzziness",
        of=fuzziness_of,
    ),
)
