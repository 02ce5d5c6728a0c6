"""The top of the page: the last values of a run, or of several runs side by side."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lightning_nc.measures.family import Family
from lightning_nc.measures.quantity import Quantity
from lightning_nc.report.runs import Run, Series


class Last(NamedTuple):
    """The last value of a quantity in one run.

    Attributes:
        value: The value.
        worrying: Whether it is worrying.
        is_best: Whether it is the best among several runs.
        earlier: When it was measured, if other families were measured later; else empty.
    """

    value: float
    worrying: bool
    is_best: bool
    earlier: str


class LastValues(NamedTuple):
    """The last values of a quantity in all runs; None for a run that did not log it."""

    key: str
    quantity: Quantity
    of_runs: list[Last | None]


def last_values(probe: str, runs: Sequence[Run], families: Iterable[Family]) -> list[LastValues]:
    """Return the last values of all quantities that at least one run logged."""
    found = []
    for family in families:
        having = [run.series.get((family.name, probe)) for run in runs]
        of_runs = zip(having, runs, strict=True)
        earlier = [_earlier(series, run, probe) if series else "" for series, run in of_runs]
        for quantity in family.quantities:
            name = quantity.name
            values = [s.values[name][-1] if s and name in s.values else None for s in having]
            if any(value is not None for value in values):
                key = f"{family.name}/{probe}/{name}"
                found.append(LastValues(key, quantity, _compared(quantity, values, earlier)))
    return found


def _earlier(series: Series, run: Run, probe: str) -> str:
    """When a series ends, if another of the probe ends later."""
    last = series.epochs[-1:]
    later = any(s.epochs[-1:] > last for (_, name), s in run.series.items() if name == probe)
    return series.times[-1] if later and last else ""


def _compared(
    quantity: Quantity, values: Sequence[float | None], earlier: Sequence[str]
) -> list[Last | None]:
    """Judge the last values of all runs."""
    costs = [quantity.cost(each) for each in values if each is not None and not math.isnan(each)]
    best = min(costs) if len(costs) > 1 else math.nan  # which no cost is equal to
    return [
        None
        if value is None
        else Last(value, quantity.is_worrying(value), quantity.cost(value) == best, when)
        for value, when in zip(values, earlier, strict=True)
    ]
