"""A table of what was measured, when training is over."""

import math
from typing import Any

from lightning_nc.callbacks.geometry_callback import GeometryCallback
from lightning_nc.callbacks.measurement import Measurement
from lightning_nc.callbacks.namespaces import CallbackBase

_BOOK = ("epochs_completed", "seconds", "failures")


class GeometrySummary(CallbackBase):
    """Print a table of all measured quantities at the end of ``fit``: the first and the last value.

    Values of single layers are left out; `callback.plot()` shows them.

    Example::

        trainer = Trainer(callbacks=[EquiSeparation(), NeuralCollapse(), GeometrySummary()])
    """

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the table, on the first process."""
        if trainer.is_global_zero:
            lines = [
                line
                for callback in trainer.callbacks
                if isinstance(callback, GeometryCallback)
                for line in summary_of(callback)
            ]
            if lines:
                print("\n".join(lines))


def summary_of(callback: GeometryCallback) -> list[str]:
    """The lines of a callback: a head, and one per quantity."""
    fitted = [m for m in callback.history if m.stage == "fit"]
    if not fitted:
        return [f"{type(callback).__name__} on '{callback.probe.key}': nothing measured."]
    first, last = fitted[0], fitted[-1]
    head = f"{type(callback).__name__} on '{callback.probe.key}'"
    columns = [_when(first), _when(last)]
    lines = ["", f"{head:<44}" + "".join(f"{column:>14}" for column in columns)]
    for key in last.values:
        name = key.removeprefix(callback.prefix())
        if key.startswith(callback.prefix()) and name not in _BOOK:
            cells = [_shown(m.values.get(key, math.nan)) for m in (first, last)]
            lines.append(f"  {name:<42}" + "".join(f"{cell:>14}" for cell in cells))
    seconds = sum(m.seconds for m in fitted)
    lines.append(f"  {len(fitted)} measurements in {seconds:.3g} s, {callback.failures} skipped")
    return lines


def _when(measurement: Measurement) -> str:
    return f"epoch {measurement.epochs_completed:g}"


def _shown(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4g}"
