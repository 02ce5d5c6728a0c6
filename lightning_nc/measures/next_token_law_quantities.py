"""The quantities of the law of next-token prediction, one row each."""

from lightning_nc.functional.next_token_prediction import residual_of
from lightning_nc.functional.separation import separation_ability
from lightning_nc.measures.quantity import Curve, Panel, Quantity

QUANTITIES = (
    Quantity(
        "rho",
        "rho",
        "Decay ratio rho of PR",
        "Every layer multiplies the prediction residual PR by about this factor.",
        ideal="below 1, small",
        worry="At 1 or above, depth does not help to predict the next token.",
        best="low",
        worry_above=1.0,
        chart=Curve(
            Panel(
                "Decay ratio rho of PR",
                "Every layer multiplies PR by about rho; at 1, depth does not help to predict.",
                references=(("no prediction", 1.0),),
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
        "Straightness r of ln PR",
        "Correlation of ln PR with depth: how evenly the layers contribute.",
        ideal="-1",
        worry="Above -0.9, some layers do much more than others; above 0, depth loses the token.",
        caveat="It does not say how much is predicted: read it together with rho.",
        best="low",
        worry_above=-0.9,
        chart=Curve(
            Panel(
                "Straightness r of ln PR",
                "Correlation of ln PR with depth; -1 is a straight line, which He & Su (2025) come "
                "close to in pre-trained language models.",
            ),
            "r",
        ),
        headline=True,
        function="functional.separation_law",
        of=lambda found: found.law.pearson_r,
    ),
    Quantity(
        "total",
        "PR_L/PR_1",
        "PR last / PR first",
        "What remains of PR after all layers: PR of the last layer divided by PR of the first.",
        ideal="0",
        worry="At 1 or above, the last layer predicts the next token no better than the first.",
        best="low",
        worry_above=1.0,
        function="functional.separation_ability",
        of=lambda found: separation_ability(found.values),
    ),
)


LAYER_QUANTITIES = (
    Quantity(
        "",
        "PR",
        "PR",
        "Prediction residual 1 - R^2: the share of the variance of the next token, as a number, "
        "that a linear map of the features does not explain.",
        ideal="0",
        worry="If it is larger than at the layer before.",
        caveat="The map is fitted to the same n samples, so d features explain about d/n of it by "
        "chance: use many more than d samples, and compare only at equal numbers.",
        best="low",
        chart=Curve(
            Panel(
                "PR at each layer",
                "PR falls with depth where layers predict the next token.",
                logarithmic=True,
            ),
            "PR",
        ),
        function="functional.prediction_residual",
        of=residual_of,
    ),
)
