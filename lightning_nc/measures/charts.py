"""Charts of the logged quantities, built from the rows of measures, for dashboards."""

import re
from collections.abc import Iterable

from lightning_nc.measures.measure import Measure
from lightning_nc.measures.quantity import charts_of_rows

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
        for panel, curves in charts_of_rows(measure.quantities).items():
            # the same pattern in all runs, or TensorBoard draws the chart for each of them
            title, of = panel.title, _ANY
            if len(curves) > _SHARED:
                title, of = f"{title} ({probe})", re.escape(probe)
            start = f"{re.escape(measure.family)}/{of}/"
            patterns = of_family.setdefault(title, [])
            wanted = [start + re.escape(name) for name in curves]
            patterns += [each for each in wanted if each not in patterns]
        for panel, curves in charts_of_rows(measure.layer_quantities).items():
            start = re.escape(f"{measure.family}_layers/{probe}/") + ".*"
            patterns = of_family.setdefault(f"{panel.title} ({probe})", [])
            patterns += [start + (re.escape(f"/{name}") if name else "") for name in curves]
    return {family: of_family for family, of_family in charts.items() if of_family}
