"""The report as one self-contained HTML page, made from the templates beside this file."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_nc.measures.family import Family
from lightning_nc.report.numbers import for_people, typeset
from lightning_nc.report.overview import LastValues, last_values
from lightning_nc.report.pictures import Picture, pictures, pictures_of_seconds
from lightning_nc.report.remarks import printable
from lightning_nc.report.runs import Run, Series
from lightning_nc.report.tables import Cost, Row, costs, of_layers, of_quantities

if TYPE_CHECKING:
    from jinja2 import Environment


class _Section(NamedTuple):
    """What one callback measured on one probe."""

    family: Family
    figures: list[Picture]
    quantities: list[Row]
    layers: list[Row]


class _Probe(NamedTuple):
    """What was measured on one probe."""

    name: str
    last_values: list[LastValues]
    sections: list[_Section]
    costs: list[Cost]
    seconds: list[Picture]


def report_page(runs: Sequence[Run], remarks: Sequence[str] = ()) -> str:
    """Return tables and figures of runs as self-contained HTML.

    Args:
        runs: One run, or several to compare.
        remarks: Sentences on what could not be read, to be named on the page.

    Raises:
        ModuleNotFoundError: If matplotlib or Jinja is not installed.
    """
    families = list({family.name: family for run in runs for family in run.families}.values())
    probes = {probe: None for run in runs for _, probe in run.series}
    all_epochs = [series.epochs for run in runs for series in run.series.values()]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=f"{len(runs)} runs" if len(runs) > 1 else runs[0].name,
            runs=[run.name for run in runs],
            several=len(runs) > 1,
            remarks=remarks,
            measurements=max(map(len, all_epochs)),
            epochs=max((epoch for epochs in all_epochs for epoch in epochs), default=math.nan),
            probes=[_probe(name, runs, families) for name in probes],
        )
    )


def _probe(name: str, runs: Sequence[Run], families: Iterable[Family]) -> _Probe:
    measured = [(family, _measured(family, name, runs)) for family in families]
    measured = [(family, of_runs) for family, of_runs in measured if of_runs]
    return _Probe(
        name,
        last_values(name, runs, families),
        [_section(family, name, of_runs) for family, of_runs in measured],
        costs(name, runs, families),
        pictures_of_seconds(measured),
    )


def _measured(family: Family, probe: str, runs: Sequence[Run]) -> dict[str, Series]:
    """Measurements of a family on a probe, by the name of the run."""
    found = {run.name: run.series.get((family.name, probe)) for run in runs}
    return {name: series for name, series in found.items() if series and series.epochs}


def _section(family: Family, probe: str, runs: Mapping[str, Series]) -> _Section:
    tables = of_quantities(family, probe, runs), of_layers(family, probe, runs)
    return _Section(family, pictures(family, runs), *tables)


def _environment() -> "Environment":
    """Templates that print all text escaped, on one line, and such that UTF-8 can encode it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lightning_nc.report"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = count()
    environment.filters["with_own_ids"] = lambda svg: _with_own_ids(svg, next(numbers))
    environment.filters |= {"typeset": typeset, "for_people": for_people}
    environment.tests["nan"] = math.isnan
    return environment


def _one_line(value: Any) -> Any:
    """Text of others, such as names of folders and probes, as `printable`; HTML as it is."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _with_own_ids(svg: str, number: int) -> str:
    """Give a picture ids of its own, since all pictures are on one page."""
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>p{number}-", svg)
