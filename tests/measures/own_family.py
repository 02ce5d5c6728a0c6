"""A family of quantities as a user writes one: the spread of two classes by their distance."""

from lightning_nc import Curve, Measure, MeasureCallback, Panel, Quantity, Request
from lightning_nc.functional.class_distance import class_distance_normalized_variance_of as cdnv


def fall(answer):
    first, *_, last = answer.layers.values()
    return cdnv(last) / cdnv(first)


class LayerwiseVariance(Measure):
    """At which depth classes become compact."""

    family = "cdnv"
    title = "CDNV by layer"
    question = "At which depth do classes become compact?"
    quantities = (
        Quantity(
            "fall",
            "",
            "Fall of CDNV",
            "CDNV of the last layer by that of the first.",
            ideal="0",
            worry="If it is above 1.",
            best="low",
            worry_above=1.0,
            chart=Curve(Panel("Fall of CDNV", "From the first to the last layer."), "fall"),
            headline=True,
            of=fall,
        ),
    )
    layer_quantities = (
        Quantity("", "CDNV", "CDNV", "CDNV at this layer.", "0", "If it rises.", of=cdnv),
    )

    def request(self):
        return Request(layers="blocks")


class LayerwiseVarianceCallback(MeasureCallback):
    """`LayerwiseVariance` under the options of all callbacks."""

    def __init__(self, **options):
        super().__init__(LayerwiseVariance(), **options)
