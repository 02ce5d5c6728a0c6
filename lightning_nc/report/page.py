"""The report as one self-contained HTML page."""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.measures.family import Family
from lightning_nc.report.drawing import (
    ZERO,
    depth_of_runs_svg,
    depth_svg,
    panel_svg,
    terminal_phase,
)
from lightning_nc.report.numbers import to_html, typeset
from lightning_nc.report.overview import comparison, tiles
from lightning_nc.report.remarks import clipped
from lightning_nc.report.runs import Run, Series
from lightning_nc.report.tables import bookkeeping_table, family_table, layers_table

_MOST_REMARKS = 100
_OF_LAW = {"rho", "pearson_r"}  # quantities of a law that the values per layer can obey


def report_page(runs: Sequence[Run], remarks: Sequence[str] = ()) -> str:
    """Return tables and figures of runs as self-contained HTML.

    Args:
        runs: One run, or several to compare.
        remarks: Sentences on what could not be read, to be named on the page.
    """
    probes = {probe: None for run in runs for _, probe in run.series}
    several = len(runs) > 1
    title = f"{len(runs)} runs" if several else runs[0].name
    parts = [f"<header><p>lightning_nc</p><h1>{to_html(title)}</h1>{_measured(runs)}</header>"]
    parts.append(_remarks(remarks))
    families = list({family.name: family for run in runs for family in run.families}.values())
    for probe in probes:
        shown = comparison if several else tiles
        overview = shown(probe, runs, families)
        sections = "".join(_section(family, probe, runs) for family in families)
        parts.append(f"<h2>Probe <em>{to_html(probe)}</em></h2>{overview}{sections}")
        parts.append(_bookkeeping(probe, runs, families))
    body = _with_own_ids("".join(parts))
    style = (files("lightning_nc.report") / "style.css").read_text()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{to_html(title)} · lightning_nc</title><style>{style}</style></head>"
        f"<body><main>{body}{_FOOTER}</main></body></html>\n"
    )


_FOOTER = (
    "<footer><p>Curves are drawn over epochs completed; 0 is before training. A dash is an "
    "undefined value, such as NC2 of two classes; a warning in the run's output says why. ▲ marks "
    "a last value that is worrying by the rule in its row; check the other rules yourself. D "
    "depends on the number of samples per class: compare runs only at equal numbers. Folders "
    "joined by a plus sign are one run that was resumed from a checkpoint.</p></footer>"
)


def _measured(runs: Sequence[Run]) -> str:
    all_series = [series for run in runs for series in run.series.values()]
    last = max((epoch for series in all_series for epoch in series.epochs), default=math.nan)
    most = max(len(series.epochs) for series in all_series)
    if not most:
        return "<p>All measurements failed.</p>"
    return f"<p>{most} measurement{'s' * (most > 1)}, up to {last:g} epochs completed</p>"


def _remarks(remarks: Sequence[str]) -> str:
    """HTML of what could not be read; empty if everything was."""
    if not remarks:
        return ""
    items = "".join(f"<li>{to_html(each)}</li>" for each in remarks[:_MOST_REMARKS])
    more = len(remarks) - _MOST_REMARKS
    items += f"<li>and {more} more</li>" * (more > 0)
    return f'<section class="remarks"><h3>What this page leaves out</h3><ul>{items}</ul></section>'


def _section(family: Family, probe: str, runs: Sequence[Run]) -> str:
    """HTML of what one callback measured on one probe."""
    having = _having(family.name, probe, runs)
    if not having:
        return ""
    figures = [*_depth_figures(family, having)]
    for panel, curves in family.charts().items():
        picture = _drawn(panel_svg, panel, curves, having)
        if picture:
            caption = panel.caption + (_phase(having) if panel.terminal else "")
            if len(having) > 1 and not all(curve.compared for curve in curves.values()):
                compared = [curve.label for curve in curves.values() if curve.compared]
                caption += f" With several runs, only {' and '.join(compared)} are shown."
            figures.append(_figure(panel.title, picture, caption))
    tables = family_table(family, probe, having)
    if any(series.layers for series in having.values()):
        tables += (
            f"<details><summary>{_layer_label(family)} at each layer</summary>"
            f"{layers_table(family, probe, having)}</details>"
        )
    return (
        f'<section id="{to_html(family.name)}-{to_html(probe)}"><h3>{to_html(family.title)}</h3>'
        f"<p>{to_html(family.question)}</p>"
        f'<div class="figures{" pairs" * (len(figures) % 2 == 0)}">{"".join(figures)}</div>'
        f"{tables}</section>"
    )


def _layer_label(family: Family) -> str:
    """The label of the values of layers."""
    named = [row.label for row in family.layer_quantities]
    return typeset(" and ".join(named))


def _having(family: str, probe: str, runs: Sequence[Run]) -> dict[str, Series]:
    found = {run.name: run.series.get((family, probe)) for run in runs}
    return {name: series for name, series in found.items() if series and series.epochs}


def _depth_figures(family: Family, runs: Mapping[str, Series]) -> Iterator[str]:
    """Yield HTML of values against depth, if a layer has one: of all runs, then of each run."""
    one_each = len(family.layer_quantities) == 1 and not family.layer_quantities[0].name
    runs = {run: series for run, series in runs.items() if series.layers}
    if not one_each or not runs:
        return
    label = family.layer_quantities[0].label
    law = {row.name for row in family.quantities} >= _OF_LAW
    if len(runs) > 1:
        unknown = [run for run, series in runs.items() if not series.in_depth]
        caption = "The last measurement of each run. "
        if unknown:
            caption += (
                f"Layers of {', '.join(unknown)} are sorted by name, which need not be their order "
                "in depth."
            )
        elif law:
            caption += "The law is a falling straight line."
        picture = _drawn(depth_of_runs_svg, runs, label)
        yield _figure(f"{label} against depth, all runs", picture, caption)
    for run, series in runs.items():
        title = f"{label} against depth" + (f": {run}" if len(runs) > 1 else "")
        picture = _drawn(depth_svg, series, label, law)
        yield _figure(title, picture, _depth_caption(series, law))


def _depth_caption(series: Series, law: bool) -> str:
    caption = "One line per measurement, from dark to light."
    if not series.in_depth:
        caption += (
            " CSVLogger sorts layers by name, and no order of them matches the logged rho: layers "
            "are shown by name, which need not be their order in depth"
            f"{', and the law is not drawn' if law else ''}. TensorBoardLogger keeps the order."
        )
    elif law:
        caption += (
            " The law, by which D falls by the same ratio rho at every layer, is a straight line. "
            "It is fitted to the last measurement (dots)."
        )
    return caption


def _phase(runs: Mapping[str, Series]) -> str:
    """Say when the terminal phase began, or by when if a run was not measured from its start."""
    starts = {}
    for run, series in runs.items():
        if "accuracy" not in series.values:
            continue
        start, begins = terminal_phase(series), series.epochs[0]
        known = "" if begins <= 0 else f" or earlier (first measured at epoch {begins:g})"
        starts[run] = "" if start is None else f"epoch {start:g}{known}"
    if not starts:
        return ""
    if len(runs) > 1:
        of_runs = ", ".join(f"{run}: {start or 'not yet'}" for run, start in starts.items())
        return f" Start of the terminal phase (accuracy 1 on the probe): {of_runs}."
    (began,) = starts.values()
    if not began:
        return " The terminal phase has not begun: the accuracy on the probe is below 1 throughout."
    return (
        " Shaded: the terminal phase, without an error on the probe (not on all training data). It "
        f"began at {began}."
    )


def _drawn(draw: Callable[..., str], *arguments: Any) -> str:
    """The SVG of a figure, or why there is none: no value that was logged costs the page."""
    try:
        with warnings.catch_warnings():
            for kind in (UserWarning, RuntimeWarning):  # letters without a glyph, values too large
                warnings.simplefilter("ignore", kind)
            return draw(*arguments)
    except ModuleNotFoundError:  # matplotlib is missing
        raise
    except Exception as error:
        reason = clipped(f"{type(error).__name__}: {error}")
        return f'<p class="undrawn">It could not be drawn: {to_html(reason)}</p>'


def _figure(title: str, picture: str, caption: str) -> str:
    zeros = "Hollow markers at the bottom are exact zeros." if ZERO in picture else ""
    return (
        f'<figure><h4>{typeset(title)}</h4><div role="img" aria-label="{to_html(title)}">{picture}'
        f"</div><figcaption>{typeset(caption)} {zeros}</figcaption></figure>"
    )


def _bookkeeping(probe: str, runs: Sequence[Run], families: Sequence[Family]) -> str:
    """HTML of failures and seconds."""
    titles = {family.name: family.title for family in families}
    rows = {
        (f"{run.name}: {titles[name]}" if len(runs) > 1 else titles[name], name): series
        for run in runs
        for (name, of_probe), series in run.series.items()
        if of_probe == probe
    }
    ((cost, curves),) = Family("", "", "", BOOKKEEPING).charts().items()
    figures = []
    for family in families:
        having = _having(family.name, probe, runs)
        picture = _drawn(panel_svg, cost, curves, having) if having else ""
        if picture:
            figures.append(_figure(f"{family.title}: seconds", picture, cost.caption))
    return (
        f"<section><h3>Failures and seconds</h3>{bookkeeping_table(rows)}"
        f'<div class="figures small">{"".join(figures)}</div></section>'
    )


def _with_own_ids(body: str) -> str:
    """Give each picture ids of its own, since all pictures are on one page."""
    pictures = iter(range(body.count("<svg")))

    def own(match: re.Match[str]) -> str:
        n = next(pictures)
        return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>p{n}-", match[0])

    return re.sub(r"<svg.*?</svg>", own, body, flags=re.DOTALL)
