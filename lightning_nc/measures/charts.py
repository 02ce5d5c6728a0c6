"""Charts of the logged quantities, built from the rows of measures, for dashboards."""

import re
from collections import Counter
from collections.abc import Iterable

from lightning_nc.measures.measure import Measure

Charts = dict[str, dict[str, list[str]]]  # regular expressions that match keys, by family and title

_ANY = "[^/]+"  # the name of any probe
_SHARED = 2  # most quantities of a chart of several probes: all lines of a run have one colour


def charts_of(measured: Iterable[tuple[Measure, str]]) -> Charts:
    """One chart per panel, of all probes if the panel has few curves, else of each probe.

    Args:
        measured: Measures, each with the name of its probe.

    Returns:
        Regular expressions that match the keys of a chart, by family and title.
    """
    charts: Charts = {}
    for measure, probe in measured:
        of_family = charts.setdefault(measure.family, {})
        panels = Counter(row.chart.panel.title for row in measure.quantities if row.chart)
        for row in measure.quantities:
            if row.chart is not None:
                name = row.chart.panel.title
                # the same pattern in all runs, or TensorBoard draws the chart for each of them
                title, of = name, _ANY
                if panels[name] > _SHARED:
                    title, of = f"{name} ({probe})", re.escape(probe)
                pattern = f"{re.escape(measure.family)}/{of}/{re.escape(row.name)}"
                patterns = of_family.setdefault(title, [])
                if pattern not in patterns:
                    patterns.append(pattern)
        for row in measure.layer_quantities:
            if row.chart is not None:
                start = re.escape(f"{measure.family}_layers/{probe}/")
                end = re.escape(f"/{row.name}") if row.name else ""
                title = f"{row.chart.panel.title} ({probe})"
                of_family.setdefault(title, []).append(f"{start}.*{end}")
    return {family: of_family for family, of_family in charts.items() if of_family}
