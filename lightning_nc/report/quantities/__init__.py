"""What each logged quantity means, what it ideally is, and when to worry."""

from lightning_nc.report.quantities import elasticity, minority, neural_collapse, separation
from lightning_nc.report.quantities.quantity import Quantity, low


def quantities(family: str) -> tuple[Quantity, ...]:
    """Those of a family, in the order of the page.

    Args:
        family: ``"separation"``, ``"nc"``, ``"minority"`` or ``"elasticity"``.
    """
    of_family = {
        "separation": separation.QUANTITIES,
        "nc": neural_collapse.QUANTITIES,
        "minority": minority.QUANTITIES,
        "elasticity": elasticity.QUANTITIES,
    }
    return of_family[family]


def layer_quantity(layer: str) -> Quantity:
    """The fuzziness D at a layer.

    Args:
        layer: Its name.
    """
    meaning = (
        "D of the raw input, which training does not change."
        if layer == "input"
        else "Separation fuzziness D after this layer: scatter within classes against distance."
    )
    return Quantity(layer, f"D at {layer}", meaning, "0", "If it is above the layer before.", low)
