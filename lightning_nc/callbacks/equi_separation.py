"""The law of equi-separation, watched while a network trains."""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_nc.callbacks.checks import rank_note
from lightning_nc.callbacks.geometry_callback import Drawing, Evaluation, GeometryCallback
from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.request import Answer, Request
from lightning_nc.callbacks.schedule import When
from lightning_nc.figures import (
    class_separation_figure,
    separation_comparison_figure,
    separation_epochs_figure,
    separation_figure,
)
from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.separation import (
    class_fuzziness_of,
    fuzziness_of,
    separation_ability,
    separation_law,
)
from lightning_nc.probe.data import Probe
from lightning_nc.probe.layers import Layers, Pool


class EquiSeparation(GeometryCallback):
    r"""Log how fuzzily each layer separates the classes, and the law ``D_t ~ c rho^t`` they obey.

    At a well-trained classifier every layer reduces the separation fuzziness
    ``D = Tr(SS_W SS_B^+)`` by about the same ratio rho. Training is left as it was, bit by bit.

    =================================== ==========================================================
    Logged key                          Value
    =================================== ==========================================================
    ``separation/{p}/rho``              Ratio per layer; below 1, smaller separates better
    ``separation/{p}/pearson_r``        Fit of the law: -1 where it holds exactly
    ``separation/{p}/half_life``        Layers in which D halves
    ``separation/{p}/total``            ``D_last / D_first``
    ``separation_layers/{p}/{layer}``   D at each point, ``input`` first
    ``separation/{p}/epochs_completed`` When
    ``separation/{p}/seconds``          What the measurement cost, shared callbacks together
    ``separation/{p}/failures``         How many were skipped
    =================================== ==========================================================

    ``{p}`` is the probe's name. Also drawn: ln D against depth with the fitted line.

    Args:
        layers: ``"blocks"`` (see `lightning_nc.find_blocks`), names or globs as in
            ``named_modules()``, or ``{name: callable}`` where the callable makes (N, d) features
            of the module's output; ``"input"`` is the raw input.
        pool: Makes (N, d) features of the outputs of all layers; by default they are flattened.
            Sequences need one: `lightning_nc.first_token`, `masked_mean` or `last_token`.
        probe: ``"train"``, ``"val"``, ``"test"``, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last.
        epochs: Epochs completed at which to measure instead; 0 is before training.
        when: ``"train_epoch_end"`` or ``"validation_end"``.
        figures: Whether to log figures.
        on_error: ``"warn"`` skips a measurement that fails and trains on, ``"raise"`` stops.

    Example::

        trainer = Trainer(callbacks=[EquiSeparation(every_n_epochs=10)])

    Source:
        He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
    """

    family = "separation"

    def __init__(
        self,
        layers: Layers = "blocks",
        pool: Pool | None = None,
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: bool = True,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__(probe, every_n_epochs, epochs, when, figures, on_error)
        self.layers = layers
        self.pool = pool

    def request(self) -> Request:
        """The geometry of the layers."""
        return Request(layers=self.layers, pool=self.pool)

    def evaluate(self, answer: Answer) -> Evaluation:
        """D at each point and the law through them."""
        return evaluate_separation(answer.layers, self.probe.key)

    def draw(self, measurement: Measurement) -> dict[str, Drawing]:
        """D against depth: with the fitted law, and over epochs."""
        return {
            self.prefix() + "law": partial(self._draw_law, measurement),
            self.prefix() + "epochs": partial(self._draw_epochs, measurement),
        }

    def draw_at_end(self, measurement: Measurement) -> dict[str, Drawing]:
        """D of each class."""
        return {self.prefix() + "classes": partial(self._draw_classes, measurement)}

    def _draw_law(self, measurement: Measurement) -> Any:
        D = measurement.arrays["fuzziness"]
        title = self.title("Separation fuzziness", measurement)
        return separation_figure(self._names(measurement), D, title)

    def _draw_epochs(self, measurement: Measurement) -> Any:
        names, start = self._names(measurement), self.prefix("separation_layers")
        by_layer = [self.over_epochs(measurement, start + name) for name in names]
        past = list(torch.tensor(by_layer, dtype=torch.float64).mT)
        title = self.title("Separation fuzziness by epoch")
        return separation_epochs_figure(names, self.epochs(measurement), past, title)

    def _draw_classes(self, measurement: Measurement) -> Any:
        D, class_D = (measurement.arrays[name] for name in ("fuzziness", "class_fuzziness"))
        names = self._names(measurement)
        title = self.title("Separation fuzziness by class", measurement)
        return class_separation_figure(names, class_D, D, title)

    def plot_against(self, *others: "EquiSeparation") -> Any:
        """Draw the last D of this callback against that of others, such as on validation data.

        Args:
            others: With probes of other names, on the same layers.

        Returns:
            A matplotlib ``Figure``.

        Raises:
            ValueError: If one has measured nothing yet, or other layers.

        Warns:
            RuntimeWarning: If they have other numbers of samples per class, on which D depends.
        """
        drawn = {}
        for each in (self, *others):
            if not each.history or each._names(each.history[-1]) != self._names(self.history[-1]):
                raise ValueError(
                    f"EquiSeparation on '{each.probe.key}' has measured nothing yet, or other "
                    f"layers than that on '{self.probe.key}'."
                )
            drawn[_compared(each)] = each.history[-1].arrays["fuzziness"]
        if any(not torch.equal(o.history[-1].counts, self.history[-1].counts) for o in others):
            warnings.warn(
                "D depends on the number of samples per class, and is not comparable here: "
                f"{'; '.join(drawn)}. Give the probes equal numbers, Probe(samples_per_class=...), "
                "of which there are enough in all of the data.",
                RuntimeWarning,
                stacklevel=2,
            )
        names = self._names(self.history[-1])
        return separation_comparison_figure(names, drawn, "Separation fuzziness, compared")

    def _names(self, measurement: Measurement) -> list[str]:
        """Of the layers, in depth."""
        start = self.prefix("separation_layers")
        return [key.removeprefix(start) for key in measurement.values if key.startswith(start)]


def _compared(callback: EquiSeparation) -> str:
    """Which probe, of how many samples, when."""
    last = callback.history[-1]
    n_k = last.counts
    low, high = int(n_k.min()), int(n_k.max())
    each = f"{low}" if low == high else f"{low} to {high}"
    return f"{callback.probe.key}, {each} per class, {last.when}"


def evaluate_separation(layers: dict[str, ClassGeometry], probe: str) -> Evaluation:
    """The logged values of `EquiSeparation`, from the geometry of layers in depth."""
    D = torch.stack([fuzziness_of(geometry) for geometry in layers.values()])
    notes = rank_note(layers)
    rho = pearson_r = half_life = D.new_tensor(torch.nan)
    if len(D) > 1:
        rho, _, pearson_r, half_life = separation_law(D)
    if not bool(pearson_r.isfinite()):
        broken = [name for name, d in zip(layers, D, strict=True) if not 0 < float(d) < math.inf]
        cause = (
            f"at {', '.join(map(repr, broken[:5]))} it is not" if broken else f"there are {len(D)}"
        )
        notes["law"] = (
            "the law is undefined (NaN): it is a line through ln D at three points or more, where "
            f"D is positive and not constant; {cause}."
        )
    law = {
        "rho": rho,
        "pearson_r": pearson_r,
        "half_life": half_life,
        "total": separation_ability(D),
    }
    values = {f"separation/{probe}/{name}": float(value) for name, value in law.items()}
    values |= {
        f"separation_layers/{probe}/{name}": float(value)
        for name, value in zip(layers, D, strict=True)
    }
    class_D = torch.stack([class_fuzziness_of(geometry) for geometry in layers.values()])
    arrays: dict[str, Tensor] = {"fuzziness": D, "class_fuzziness": class_D}
    return Evaluation(values, arrays, notes)
