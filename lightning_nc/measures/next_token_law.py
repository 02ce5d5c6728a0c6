"""The law of next-token prediction: PR at each layer, and the line through ln PR."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_nc.arguments import require_layers, require_one_of, require_pooling
from lightning_nc.figures import separation_figure
from lightning_nc.figures.canvas import Target
from lightning_nc.figures.tables import Lines, Table
from lightning_nc.functional.next_token_prediction import Normalization, extended_factor
from lightning_nc.functional.separating_directions import triangular_factor
from lightning_nc.measures.laws import draw_by_epoch, fitted_law, law_tables
from lightning_nc.measures.measure import Drawing, Evaluation, Measure
from lightning_nc.measures.next_token_law_quantities import LAYER_QUANTITIES, QUANTITIES
from lightning_nc.measures.notes import law_note, nesting_note
from lightning_nc.measures.timeline import Timeline
from lightning_nc.network.points import Layers, Pool
from lightning_nc.passes.layer_batches import LayerBatch
from lightning_nc.passes.request import Answer, Request
from lightning_nc.passes.statistics import Statistic
from lightning_nc.wording import listed

_LABEL = "prediction residual PR"


class RegressionFactor(Statistic):
    """The triangular factor of intercept, features and next tokens: all that a regression needs.

    Factors do not add up, so that P processes need ``P (d + 2)^2`` numbers per layer.

    Args:
        normalization: What is done to each vector of features before.
    """

    second_sweep, adds_up = False, False

    def __init__(self, normalization: Normalization) -> None:
        self.name, self.normalization = f"regression_{normalization}", normalization

    def shape(self, K: int, d: int) -> tuple[int, ...]:
        """A row per column of the regression."""
        return d + 2, d + 2

    def add_to(self, total: Tensor, batch: LayerBatch) -> None:
        """Take the rows of a batch into the factor."""
        features, tokens = batch.features, batch.source_labels
        total.copy_(extended_factor(total, features, tokens, self.normalization))

    def combine(self, states: Tensor) -> Tensor:
        """The factor of several below each other."""
        return states[0] if len(states) == 1 else triangular_factor(states.flatten(0, 1))


class NextTokenMeasure(Measure):
    """The prediction residual PR of each layer, and the law ``PR_l ~ c rho^l``.

    Args:
        layers: See the callback `NextTokenLaw`.
        pool: See the callback.
        normalization: See the callback.
    """

    family = "next_token"
    title = "The law of next-token prediction"
    question = "How much of the next token can a linear map of each layer not tell?"
    figures = ("law", "epochs")
    quantities = QUANTITIES
    layer_quantities = LAYER_QUANTITIES

    def __init__(
        self,
        layers: Layers = "blocks",
        pool: Pool = "auto",
        normalization: Normalization = "layer_norm",
    ) -> None:
        require_pooling(pool)
        require_one_of("normalization", normalization, ("layer_norm", "rms_norm", "none"))
        self.layers, self.pool = require_layers(layers), pool
        self.factor = RegressionFactor(normalization)

    def request(self) -> Request:
        """Request the factor of each layer, without the geometry of classes."""
        return Request(
            self.layers, self.pool, statistics=(self.factor,), geometry=False, tokens=True
        )

    def evaluate(self, answer: Answer) -> Evaluation:
        """Compute PR at each layer, and fit the law to these values."""
        factors = {name: found[self.factor.name] for name, found in answer.statistics.items()}
        layers = self.values_of_layers(factors)
        PR = torch.tensor([*layers.values()], dtype=torch.float64)
        found = fitted_law(PR)
        undefined = _undefined(layers, factors, answer.counts)
        if not undefined and not bool(found.law.pearson_r.isfinite()):
            undefined = law_note(layers, "PR")
        notes = nesting_note(layers, "PR") | undefined
        return Evaluation(self.values_of(found), layers, {"residual": PR}, notes)

    def draw(self, timeline: Timeline) -> dict[str, Drawing]:
        """Figures of PR against depth, with the fitted law and over epochs."""
        title = "Prediction residual by epoch"
        over_epochs = partial(draw_by_epoch, timeline, title, _LABEL)
        return {"law": partial(_draw_law, timeline), "epochs": over_epochs}

    def tables(self, timeline: Timeline) -> dict[str, Table | Lines]:
        """Tables of PR by layer, and of ln PR over depth for every measurement."""
        return law_tables(timeline, "PR")


def _undefined(
    layers: Mapping[str, float], factors: Mapping[str, Tensor], counts: Tensor
) -> dict[str, str]:
    """Why PR is NaN, and the law with it."""
    undefined = [name for name, PR in layers.items() if PR != PR]
    if not undefined:
        return {}
    d = max(len(factors[name]) - 2 for name in undefined)
    return {
        "few": f"PR and the law are undefined (NaN): {int(counts.sum())} samples are too few for "
        f"the {d} features at {listed(map(repr, undefined))}. Give more, as with "
        "Probe(samples_per_class=None)."
    }


def _draw_law(timeline: Timeline, on: Target = None) -> Any:
    title = timeline.title_of_last("Prediction residual")
    PR = timeline.last.arrays["residual"]
    return separation_figure(timeline.layers, PR, title, reference=None, label=_LABEL, on=on)
