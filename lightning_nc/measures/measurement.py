"""The result of a measurement: values under their logged keys, and arrays for figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_nc.measures.shown import html_table, in_one_line, rounded

LARGE = 1_000  # arrays with more numbers are kept only for the last measurement


@dataclass(frozen=True, repr=False)
class Measurement:
    """The values of one measure at one moment.

    Attributes:
        epochs_completed: Training epochs completed before it; 0 before training, with a fraction
            within an epoch.
        step: The step under which it was logged.
        values: Scalars under their logged keys; NaN where undefined.
        arrays: Tensors behind the figures, on the CPU. A callback keeps those of more than 1,000
            numbers only for its last measurement, and of more than 1,000 measurements those of
            every 2nd, 4th, 8th ... and of the last.
        counts: Samples per class, n_k, shape ``(K,)``: compare D only at equal n_k.
        seconds: Duration of the measurement.
        stage: ``"fit"``, ``"validate"``, ``"test"``, or ``"measure"`` without a Trainer.
        pooling: How layers were pooled, in words by name, where that was chosen automatically and
            they were not merely flattened.
        classes: Name of each class, where the dataset tells it; the labels, if classes are left
            out; empty if the classes are 0 .. K - 1 and have no names.
        probe: How the samples were drawn: settings of the `Probe`, in words by name.
    """

    epochs_completed: float
    step: int
    values: dict[str, float]
    arrays: dict[str, Tensor]
    counts: Tensor
    seconds: float
    stage: str = "fit"
    pooling: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    probe: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._told}: {in_one_line(self.values)}>"

    def _repr_html_(self) -> str:
        """All values as a table, in a notebook."""
        rows = [(key, rounded(value, 6)) for key, value in self.values.items()]
        return html_table(rows, ("", self._told))

    @property
    def _told(self) -> str:
        of = f"of {int(self.counts.sum())} samples"
        return of if self.stage == "measure" else f"after {self.when}, {of}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, or its label where it has none."""
        known = len(self.classes) == len(self.counts)
        return tuple(map(str, self.classes if known else range(len(self.counts))))

    @property
    def is_within_first_epoch(self) -> bool:
        """Whether epochs do not tell when it was: within a first epoch of unknown length."""
        return self.epochs_completed == 0 and self.step > 0

    @property
    def when(self) -> str:
        """The number of completed epochs in words, or the step in a first of unknown length."""
        if self.is_within_first_epoch:
            return f"step {self.step} of the first epoch"
        return f"{self.epochs_completed:g} {'epoch' if self.epochs_completed == 1 else 'epochs'}"

    def without_large_arrays(self) -> "Measurement":
        """The measurement without arrays that would make long histories and checkpoints large."""
        small = {name: array for name, array in self.arrays.items() if not is_large(array)}
        return self if len(small) == len(self.arrays) else replace(self, arrays=small)


def is_large(array: Tensor) -> bool:
    """Whether an array is kept only for the last measurement; those that are not dense are, too."""
    return array.layout is not torch.strided or array.is_quantized or array.numel() > LARGE


def on_its_own(array: Tensor) -> Tensor:
    """A copy on the CPU: a view would be stored together with the much larger sums it shows."""
    return array.detach().cpu().clone()


def keyed(
    family: str, probe: str, values: Mapping[str, float], layers: Mapping[str, float]
) -> dict[str, float]:
    """Values under their logged keys: ``family/probe/name`` and ``family_layers/probe/layer``.

    Args:
        family: Family of the measure.
        probe: Name of the probe.
        values: Values by name of the quantity.
        layers: Values by layer, or by ``layer/name`` where a layer has several.

    Example:
        >>> keyed("nc", "train", {"nc1": 0.5}, {})
        {'nc/train/nc1': 0.5}
    """
    of_all = {f"{family}/{probe}/{name}": value for name, value in values.items()}
    return of_all | {f"{family}_layers/{probe}/{name}": value for name, value in layers.items()}
