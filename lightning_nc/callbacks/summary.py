"""A table of the measured quantities, printed at the end of training."""

import math
from collections.abc import Iterable
from typing import Any

from lightning_nc.callbacks.lightning_base import CallbackBase
from lightning_nc.callbacks.measure_callback import records_of
from lightning_nc.callbacks.record import Record
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.shown import rounded


class GeometrySummary(CallbackBase):
    """Callback that prints the first and the last value of each quantity at the end of ``fit``.

    Values of single layers are left out; `callback.plot()` shows them.

    Example::

        trainer = Trainer(callbacks=[EquiSeparation(), NeuralCollapse(), GeometrySummary()])
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the table, on the first process."""
        if trainer.is_global_zero:
            records = records_of(trainer)
            lines = [line for record in records for line in _lines_of(record)]
            if lines:
                print("\n".join([*lines, "", _duration_of(records)]))


def _lines_of(record: Record) -> list[str]:
    """Return the lines of one callback: a heading, then one per quantity."""
    fitted = record.fitted()
    if not fitted:
        return [f"{record.title}: nothing measured, {record.failures} skipped."]
    first, last = fitted[0], fitted[-1]
    columns = "".join(f"{_when(each):>14}" for each in (first, last))
    lines = ["", f"{record.title:<44}{columns}"]
    for row in record.measure.quantities:
        key = record.prefix + row.name
        if key in last.values:
            cells = [_shown(each.values.get(key, math.nan)) for each in (first, last)]
            lines.append(f"  {row.name:<42}" + "".join(f"{cell:>14}" for cell in cells))
    plural = "s" if len(fitted) > 1 else ""
    lines.append(f"  {len(fitted)} measurement{plural}, {record.failures} skipped")
    return lines


def _duration_of(records: Iterable[Record]) -> str:
    """Return a line on the duration of all passes; one that callbacks share counts once."""
    passes = {
        measured
        for fitted in (record.fitted() for record in records)
        for measured in zip(
            fitted.series("epochs_completed"), fitted.series("seconds"), strict=True
        )
    }
    return f"All measurements together took {sum(seconds for _, seconds in passes):.3g} s."


def _when(measurement: Measurement) -> str:
    if measurement.is_within_first_epoch:
        return f"step {measurement.step}"
    return f"epoch {measurement.epochs_completed:g}"


def _shown(value: float) -> str:
    return "undefined" if math.isnan(value) else rounded(value)
