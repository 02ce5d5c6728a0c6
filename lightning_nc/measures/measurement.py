"""What a measurement leaves: numbers under their logged keys, arrays for figures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

LARGE = 1_000  # numbers in an array that is kept for the last measurement alone


@dataclass(frozen=True)
class Measurement:
    """The result of one measure, measured once.

    Attributes:
        epochs_completed: Training epochs before it; 0 before training, with a fraction within an
            epoch.
        step: The step under which it was logged.
        values: Scalars under their logged keys; NaN where undefined.
        arrays: Tensors behind the figures, on the CPU; a callback keeps those of more than 1,000
            numbers for its last measurement alone.
        counts: Samples per class, n_k, shape ``(K,)``: compare D only at equal n_k.
        seconds: What it cost.
        stage: ``"fit"``, ``"validate"``, ``"test"``, or ``"measure"`` without a Trainer.
    """

    epochs_completed: float
    step: int
    values: dict[str, float]
    arrays: dict[str, Tensor] = field(repr=False)
    counts: Tensor = field(repr=False)
    seconds: float
    stage: str = "fit"

    @property
    def when(self) -> str:
        """After how many epochs, in words."""
        return f"{self.epochs_completed:g} {'epoch' if self.epochs_completed == 1 else 'epochs'}"

    def without_large_arrays(self) -> "Measurement":
        """The same without arrays that would make a long history, and its checkpoints, large."""
        small = {name: array for name, array in self.arrays.items() if array.numel() <= LARGE}
        return self if len(small) == len(self.arrays) else replace(self, arrays=small)

    def to_state(self) -> dict[str, Any]:
        """Primitives and tensors alone, which checkpoints load with ``weights_only=True``."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Measurement":
        """Read back what `to_state` wrote, also by a version that wrote more."""
        return cls(**{name: state[name] for name in cls.__dataclass_fields__ if name in state})


def on_its_own(array: Tensor) -> Tensor:
    """A copy on the CPU: no view of sums that are much larger, and would be stored with it."""
    return array.detach().cpu().clone()


def keyed(
    family: str, probe: str, values: Mapping[str, float], layers: Mapping[str, float]
) -> dict[str, float]:
    """Values under the keys of loggers: ``family/probe/name`` and ``family_layers/probe/layer``.

    Args:
        family: Of the measure.
        probe: Its name.
        values: By the name of their quantity.
        layers: By layer, and with several per layer by ``layer/name``.

    Example:
        >>> keyed("nc", "train", {"nc1": 0.5}, {})
        {'nc/train/nc1': 0.5}
    """
    of_all = {f"{family}/{probe}/{name}": value for name, value in values.items()}
    return of_all | {f"{family}_layers/{probe}/{name}": value for name, value in layers.items()}
