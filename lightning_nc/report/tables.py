"""Tables of the page: quantities with their meaning, layers, and the cost of measuring."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightning_nc.measures.family import Family
from lightning_nc.measures.quantity import Quantity
from lightning_nc.report.cells import cell, number
from lightning_nc.report.numbers import summary, to_html, typeset
from lightning_nc.report.runs import Series


def family_table(family: Family, probe: str, runs: Mapping[str, Series]) -> str:
    """Return HTML of the quantities: first, best and last value, meaning, and when to worry.

    Args:
        family: The family of the quantities.
        probe: The name of the probe.
        runs: Measurements by the name of the run.
    """
    rows = [
        _rows(f"{family.name}/{probe}/{quantity.name}", quantity, of_runs)
        for quantity in family.quantities
        if (
            of_runs := {
                r: (s.epochs, s.values[quantity.name])
                for r, s in runs.items()
                if quantity.name in s.values
            }
        )
    ]
    return _table(rows, len(runs) > 1)


def layers_table(family: Family, probe: str, runs: Mapping[str, Series]) -> str:
    """Return HTML of the first, best and last value at each layer, in order of depth.

    Args:
        family: The family of the values.
        probe: The name of the probe.
        runs: Measurements by the name of the run.
    """
    layers = {layer: None for series in runs.values() for layer in series.layers}
    rows = [
        _rows(
            f"{family.name}_layers/{probe}/{layer}",
            _of_layer(family, layer),
            {r: (s.epochs, s.layers[layer]) for r, s in runs.items() if layer in s.layers},
        )
        for layer in layers
    ]
    return _table(rows, len(runs) > 1)


def _of_layer(family: Family, key: str) -> Quantity:
    """The quantity of a layer's key: if a layer has several, the one that the key ends with."""
    named = [row for row in family.layer_quantities if row.name and key.endswith(f"/{row.name}")]
    row = next(iter([*named, *family.layer_quantities]), Quantity("", "", "value", ""))
    layer = key.removesuffix(f"/{row.name}") if row.name else key
    return replace(row, label=f"{row.label} at {layer}")


def bookkeeping_table(runs: Mapping[tuple[str, str], Series]) -> str:
    """Return HTML of the number of measurements, failures and seconds.

    Args:
        runs: Measurements by the name of the run and the family.
    """
    rows = []
    for (run, family), series in runs.items():
        seconds = [s for s in series.values.get("seconds", []) if math.isfinite(s)]
        failed = number(float(series.failures), series.failures > 0)
        cells = (
            ("measurements", number(float(len(series.epochs)))),
            ("failures", failed),
            ("total seconds", number(sum(seconds))),
            ("longest", number(max(seconds, default=math.nan))),
        )
        data = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells)
        rows.append(
            f'<tr data-key="{to_html(family)}"><th scope="row">{to_html(run)}</th>{data}</tr>'
        )
    heads = ("", "measurements", "failures", "total seconds", "longest")
    return _framed(heads, [f"<tbody>{''.join(rows)}</tbody>"], "numbers")


def _rows(
    key: str,
    quantity: Quantity,
    runs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> str:
    """HTML of a quantity, with a row per run; runs have epochs and values."""
    worry = f'<p class="when"><i>When to worry:</i> {typeset(quantity.worry)}</p>'
    meaning = (
        f'<th scope="rowgroup" rowspan="{len(runs)}"><b>{typeset(quantity.label)}</b> '
        f"<code>{to_html(key)}</code><p>{typeset(quantity.meaning)}</p>"
        f"{worry if quantity.worry else ''}</th>"
    )
    ideal = f'<td data-label="ideal" rowspan="{len(runs)}">{typeset(quantity.ideal) or "·"}</td>'
    rows = []
    for run, (epochs, values) in runs.items():
        of_run = summary(quantity, epochs, values)
        worrying = quantity.is_worrying(of_run.last.value)
        cells = f'<td class="run" data-label="run">{to_html(run)}</td>' if len(runs) > 1 else ""
        cells += cell("first", of_run.first) + cell("best", of_run.best)
        cells += cell("last", of_run.last, worrying)
        rows.append(f'<tr data-run="{to_html(run)}">{meaning}{cells}{ideal}</tr>')
        meaning = ideal = ""
    return f'<tbody data-key="{to_html(key)}">{"".join(rows)}</tbody>'


def _table(rows: Sequence[str], several: bool) -> str:
    heads = ("quantity", *(["run"] if several else []), "first", "best", "last", "ideal")
    return _framed(heads, rows, "quantities")


def _framed(heads: Sequence[str], bodies: Sequence[str], kind: str) -> str:
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead>{"".join(bodies)}</table>'
