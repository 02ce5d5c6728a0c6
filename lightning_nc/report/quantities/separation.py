"""What `EquiSeparation` logs."""

from lightning_nc.report.quantities.quantity import Quantity, low, short_half_life

QUANTITIES = (
    Quantity(
        "rho",
        "Decay ratio rho",
        "Every layer multiplies the separation fuzziness D by about this much.",
        "below 1, small",
        "At 1 or above, depth does not separate the classes.",
        low,
        lambda rho: rho >= 1,
    ),
    Quantity(
        "pearson_r",
        "Straightness r",
        "Correlation of ln D with depth: how exactly every layer contributes the same.",
        "-1",
        "Above -0.9 some layers do much more than others; above 0 depth mixes the classes.",
        low,
        lambda r: r > -0.9,
    ),
    Quantity(
        "half_life",
        "Half-life",
        "Number of layers in which D halves, ln 2 / ln(1/rho).",
        "small, positive",
        "If it is negative, D doubles in as many layers.",
        short_half_life,
        lambda layers: layers < 0,
    ),
    Quantity(
        "total",
        "D last / D first",
        "What is left of the input's fuzziness after all layers.",
        "0",
        "At 1 or above, the last layer is no clearer than the input.",
        low,
        lambda total: total >= 1,
    ),
)
