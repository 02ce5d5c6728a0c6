"""Rows of the page's tables: quantities with their meaning, layers, and the cost of measuring."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lightning_nc.measures.family import Family
from lightning_nc.measures.quantity import Quantity
from lightning_nc.report.numbers import Summary, summary
from lightning_nc.report.runs import Run, Series


class Row(NamedTuple):
    """A quantity, with its first, best and last value by the name of the run."""

    key: str
    quantity: Quantity
    of_runs: dict[str, Summary]


class Cost(NamedTuple):
    """What the measurements of one family, or of several in shared passes, cost one run."""

    title: str
    families: str
    measurements: int
    failures: int
    seconds: float
    longest: float


def of_quantities(family: Family, probe: str, runs: Mapping[str, Series]) -> list[Row]:
    """Return a row for each quantity that at least one run logged."""
    rows = []
    for quantity in family.quantities:
        name = quantity.name
        having = {run: series for run, series in runs.items() if name in series.values}
        of_runs = {run: summary(quantity, s.times, s.values[name]) for run, s in having.items()}
        if of_runs:
            rows.append(Row(f"{family.name}/{probe}/{name}", quantity, of_runs))
    return rows


def of_layers(family: Family, probe: str, runs: Mapping[str, Series]) -> list[Row]:
    """Return a row for each layer, in order of depth."""
    rows = []
    for layer in {layer: None for series in runs.values() for layer in series.layers}:
        quantity = _of_layer(family, layer)
        having = {run: series for run, series in runs.items() if layer in series.layers}
        of_runs = {run: summary(quantity, s.times, s.layers[layer]) for run, s in having.items()}
        rows.append(Row(f"{family.name}_layers/{probe}/{layer}", quantity, of_runs))
    return rows


def _of_layer(family: Family, key: str) -> Quantity:
    """The quantity of a layer's key: if a layer has several, the one that the key ends with."""
    named = [row for row in family.layer_quantities if row.name and key.endswith(f"/{row.name}")]
    row = next(iter([*named, *family.layer_quantities]), Quantity("", "", "value", ""))
    layer = key.removesuffix(f"/{row.name}") if row.name else key
    return replace(row, label=f"{row.label} at {layer}")


def costs(probe: str, runs: Sequence[Run], families: Iterable[Family]) -> list[Cost]:
    """Return the number of measurements, failures and seconds of each family in each run.

    Families that shared all passes are one row, since the seconds were spent once.
    """
    titles = {family.name: family.title for family in families}
    rows = []
    for run in runs:
        together: dict[Any, dict[str, Series]] = {}
        for (name, of_probe), series in run.series.items():
            if of_probe == probe:
                together.setdefault(series.passes, {})[name] = series
        for sharing in together.values():
            title = ", ".join(titles[name] for name in sharing)
            title = f"{run.name}: {title}" if len(runs) > 1 else title
            series = next(iter(sharing.values()))
            seconds = [s for s in series.values.get("seconds", []) if math.isfinite(s)]
            longest = max(seconds, default=math.nan)
            counted = len(series.epochs), series.failures
            rows.append(Cost(title, " ".join(sharing), *counted, sum(seconds), longest))
    return rows
