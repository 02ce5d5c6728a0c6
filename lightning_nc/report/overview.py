"""The top of the page: the last values of a run, or of several runs side by side."""

import math
from collections.abc import Sequence

from lightning_nc.measures.family import Family
from lightning_nc.measures.quantity import Quantity
from lightning_nc.report.cells import number
from lightning_nc.report.numbers import to_html, typeset
from lightning_nc.report.runs import Run


def tiles(probe: str, runs: Sequence[Run], families: Sequence[Family]) -> str:
    """Return HTML of tiles with the last values of the headline quantities.

    Args:
        probe: The name of the probe.
        runs: One run.
        families: Families of its quantities.
    """
    (run,) = runs
    shown = []
    for family in families:
        series = run.series.get((family.name, probe))
        for quantity in family.quantities if series else ():
            if series and quantity.headline and quantity.name in series.values:
                value = series.values[quantity.name][-1]
                ideal = f"ideal: {typeset(quantity.ideal)}" if quantity.ideal else ""
                shown.append(
                    f'<div class="tile"><span>{typeset(quantity.label)}</span>'
                    f"<strong>{number(value, quantity.is_worrying(value))}</strong>"
                    f"<small>{ideal}</small></div>"
                )
    return f'<div class="tiles">{"".join(shown)}</div>'


def comparison(probe: str, runs: Sequence[Run], families: Sequence[Family]) -> str:
    """Return HTML of a table with the last values of all runs; the best of each row is bold.

    Args:
        probe: The name of the probe.
        runs: Several runs.
        families: Families of their quantities.
    """
    rows = []
    for family in families:
        having = [run.series.get((family.name, probe)) for run in runs]
        for quantity in family.quantities:
            last = [
                series.values[quantity.name][-1]
                if series and quantity.name in series.values
                else None
                for series in having
            ]
            if any(value is not None for value in last):
                rows.append(_compared(f"{family.name}/{probe}/{quantity.name}", quantity, last))
    head = "".join(f'<th scope="col">{to_html(run.name)}</th>' for run in runs)
    return (
        '<div class="wide"><table class="comparison"><thead><tr><th scope="col">last value</th>'
        f'{head}<th scope="col">ideal</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _compared(key: str, quantity: Quantity, last: Sequence[float | None]) -> str:
    """HTML of a row of the comparison; a value is None if its run did not log it."""
    cost, comparable = quantity.cost, quantity.best is not None
    defined = [value for value in last if value is not None and not math.isnan(value)]
    best = min(map(cost, defined)) if comparable and len(defined) > 1 else None
    cells = []
    for value in last:
        if value is None:
            cells.append('<td title="not logged">·</td>')
            continue
        is_best = best is not None and cost(value) == best
        text = number(value, quantity.is_worrying(value))
        cells.append(f"<td>{f'<strong>{text}</strong>' if is_best else text}</td>")
    head = f'<th scope="row"><b>{typeset(quantity.label)}</b> <code>{to_html(key)}</code></th>'
    cells.append(f"<td>{typeset(quantity.ideal)}</td>")
    return f'<tr data-key="{to_html(key)}">{head}{"".join(cells)}</tr>'
