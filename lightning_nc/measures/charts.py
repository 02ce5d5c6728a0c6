"""Charts of the logged quantities, built from the rows of measures, for dashboards."""

import re
from collections.abc import Iterable

from lightning_nc.measures.measure import Measure
from lightning_nc.measures.quantity import Quantity

Charts = dict[str, dict[str, list[str]]]  # regular expressions that match keys, by family and title


def charts_of(measured: Iterable[tuple[Measure, str]]) -> Charts:
    """One chart per panel and probe.

    Args:
        measured: Measures, each with the name of its probe.

    Returns:
        Regular expressions that match the keys of a chart, by family and title.
    """
    charts: Charts = {}
    for measure, probe in measured:
        of_family = charts.setdefault(measure.family, {})
        for row in measure.quantities:
            _add(of_family, row, probe, re.escape(f"{measure.family}/{probe}/{row.name}"))
        for row in measure.layer_quantities:
            start = re.escape(f"{measure.family}_layers/{probe}/")
            end = re.escape(f"/{row.name}") if row.name else ""
            _add(of_family, row, probe, f"{start}.*{end}")
    return {family: of_family for family, of_family in charts.items() if of_family}


def _add(charts: dict[str, list[str]], row: Quantity, probe: str, pattern: str) -> None:
    if row.chart is not None:
        charts.setdefault(f"{row.chart.panel.title} ({probe})", []).append(pattern)
