"""The law of equi-separation: D at each layer, and the line through ln D."""

from functools import partial
from typing import Any

import torch

from lightning_nc.arguments import require_layers, require_pooling
from lightning_nc.figures import (
    class_quantiles_figure,
    class_separation_figure,
    separation_figure,
)
from lightning_nc.figures.canvas import FUZZINESS, Target
from lightning_nc.figures.tables import Lines, Table
from lightning_nc.functional.separation import class_fuzziness_of
from lightning_nc.measures.equi_separation_quantities import LAYER_QUANTITIES, QUANTITIES
from lightning_nc.measures.laws import draw_by_epoch, fitted_law, law_tables
from lightning_nc.measures.many_classes import QUANTILES, class_arrays
from lightning_nc.measures.measure import Drawing, Evaluation, Measure
from lightning_nc.measures.notes import law_note, nesting_note, rank_note, single_samples_note
from lightning_nc.measures.timeline import Timeline
from lightning_nc.network.points import Layers, Pool
from lightning_nc.passes.request import Answer, Request


class SeparationMeasure(Measure):
    """The separation fuzziness D of each layer, and the law ``D_t ~ c rho^t``.

    Args:
        layers: See the callback `EquiSeparation`.
        pool: See the callback.
    """

    family = "separation"
    title = "The law of equi-separation"
    question = "How fuzzily does each layer separate the classes?"
    figures = ("law", "epochs", "classes")
    quantities = QUANTITIES
    layer_quantities = LAYER_QUANTITIES

    def __init__(self, layers: Layers = "blocks", pool: Pool = "auto") -> None:
        require_pooling(pool)
        self.layers, self.pool = require_layers(layers), pool

    def request(self) -> Request:
        """Request the geometry of the layers."""
        return Request(layers=self.layers, pool=self.pool)

    def evaluate(self, answer: Answer) -> Evaluation:
        """Compute D at each layer, and fit the law to these values."""
        layers = self.values_of_layers(answer.layers)
        D = torch.tensor([*layers.values()], dtype=torch.float64)
        found = fitted_law(D)
        by_class = torch.stack([*map(class_fuzziness_of, answer.layers.values())])
        arrays = {"fuzziness": D} | class_arrays("class_fuzziness", by_class)
        notes = rank_note(answer.layers) | nesting_note(answer.layers)
        notes |= single_samples_note(answer.counts, "D")
        if not bool(found.law.pearson_r.isfinite()):
            notes |= law_note(layers)
        return Evaluation(self.values_of(found), layers, arrays, notes)

    def draw(self, timeline: Timeline) -> dict[str, Drawing]:
        """Figures of D against depth, with the fitted law and over epochs."""
        title = "Separation fuzziness by epoch"
        over_epochs = partial(draw_by_epoch, timeline, title, FUZZINESS)
        return {"law": partial(_draw_law, timeline), "epochs": over_epochs}

    def draw_at_end(self, timeline: Timeline) -> dict[str, Drawing]:
        """A figure of D by class."""
        return {"classes": partial(_draw_classes, timeline)}

    def tables(self, timeline: Timeline) -> dict[str, Table | Lines]:
        """Tables of D by layer, and of ln D over depth for every measurement."""
        return law_tables(timeline, "D")


def _draw_law(timeline: Timeline, on: Target = None) -> Any:
    title = timeline.title_of_last("Separation fuzziness")
    return separation_figure(timeline.layers, timeline.last.arrays["fuzziness"], title, on=on)


def _draw_classes(timeline: Timeline, on: Target = None) -> Any:
    arrays = timeline.last.arrays
    title = timeline.title_of_last("Separation fuzziness by class")
    D, names = arrays["fuzziness"], timeline.last.class_names
    if "class_fuzziness_quantiles" in arrays:
        worst, best = (names[k] for k in arrays["class_fuzziness_extremes"].tolist())
        quantiles = dict(zip(QUANTILES, arrays["class_fuzziness_quantiles"].mT, strict=True))
        return class_quantiles_figure(timeline.layers, quantiles, D, (worst, best), title, on)
    D_k = arrays["class_fuzziness"]
    return class_separation_figure(timeline.layers, D_k, D, names, title, on)
