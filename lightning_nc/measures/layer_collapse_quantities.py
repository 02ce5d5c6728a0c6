"""The quantities of neural collapse at each layer, one row each."""

from typing import NamedTuple

from torch import Tensor

from lightning_nc.functional.class_distance import class_distance_normalized_variance_of
from lightning_nc.functional.class_geometry import ClassGeometry, undefined_without_signal
from lightning_nc.functional.neural_collapse import variability_collapse_of
from lightning_nc.measures.quantity import Curve, Panel, Quantity


class LayerCollapse(NamedTuple):
    """What the values of a layer are computed from.

    Attributes:
        features: Geometry of the layer.
        mismatch: Share of samples that the classifier does not assign to the nearest class mean of
            the layer, a scalar; None without a head.
    """

    features: ClassGeometry
    mismatch: Tensor | None


def mismatch_of(share: Tensor | None, features: ClassGeometry) -> Tensor | None:
    """NC4, or NaN where class means coincide, so that none is the nearest; None without a head."""
    return None if share is None else undefined_without_signal(share, features.rank)


LAYER_QUANTITIES = (
    Quantity(
        "nc1",
        "NC1",
        "NC1",
        "NC1 of a layer: how far samples scatter about their class mean there.",
        ideal="0",
        worry="If it is larger than at the layer before.",
        best="low",
        chart=Curve(
            Panel(
                "NC1 at each layer",
                "Samples collapse to their class means with depth.",
                logarithmic=True,
            ),
            "NC1",
        ),
        function="functional.variability_collapse",
        of=lambda layer: variability_collapse_of(layer.features),
    ),
    Quantity(
        "cdnv",
        "CDNV",
        "CDNV",
        "CDNV of a layer.",
        ideal="0",
        worry="If it is larger than at the layer before.",
        best="low",
        chart=Curve(
            Panel(
                "CDNV at each layer",
                "Classes become compact, compared with their distances, with depth.",
                logarithmic=True,
            ),
            "CDNV",
        ),
        function="functional.class_distance_normalized_variance",
        of=lambda layer: class_distance_normalized_variance_of(layer.features),
    ),
    Quantity(
        "nc4",
        "NC4",
        "NC4",
        "NC4 of a layer: share of samples that the classifier does not assign to the nearest class "
        "mean there.",
        ideal="0",
        worry="If it is large at the last layers: only the classifier tells the classes apart.",
        caveat="Not logged without a head.",
        best="low",
        chart=Curve(
            Panel(
                "NC4 at each layer",
                "From the layer on at which it is near 0, the nearest class mean decides as the "
                "network does.",
            ),
            "NC4",
        ),
        function="functional.nearest_class_center_mismatch",
        of=lambda layer: mismatch_of(layer.mismatch, layer.features),
    ),
)
