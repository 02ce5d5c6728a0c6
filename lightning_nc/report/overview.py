"""The top of the page: the last values of a run, or of several runs side by side."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lightning_nc.measures.family import Family
from lightning_nc.measures.quantity import Quantity
from lightning_nc.report.runs import Run


class Last(NamedTuple):
    """The last value of a quantity in one run, and whether it is the best among several runs."""

    value: float
    worrying: bool
    is_best: bool


class LastValues(NamedTuple):
    """The last values of a quantity in all runs; None for a run that did not log it."""

    key: str
    quantity: Quantity
    of_runs: list[Last | None]


def last_values(probe: str, runs: Sequence[Run], families: Iterable[Family]) -> list[LastValues]:
    """Return the last values of all quantities that at least one run logged.

    Args:
        probe: The name of the probe.
        runs: One run or several.
        families: Families of their quantities.
    """
    found = []
    for family in families:
        having = [run.series.get((family.name, probe)) for run in runs]
        for quantity in family.quantities:
            name = quantity.name
            values = [s.values[name][-1] if s and name in s.values else None for s in having]
            if any(value is not None for value in values):
                key = f"{family.name}/{probe}/{name}"
                found.append(LastValues(key, quantity, _compared(quantity, values)))
    return found


def _compared(quantity: Quantity, values: Sequence[float | None]) -> list[Last | None]:
    """Judge the last values of all runs."""
    costs = [quantity.cost(each) for each in values if each is not None and not math.isnan(each)]
    best = min(costs) if len(costs) > 1 else math.nan  # which no cost is equal to
    return [
        None
        if value is None
        else Last(value, quantity.is_worrying(value), quantity.cost(value) == best)
        for value in values
    ]
