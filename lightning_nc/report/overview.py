"""What the page begins with: the last values of a run, or of several side by side."""

import math
from collections.abc import Sequence
from html import escape

from lightning_nc.report.cells import is_worrying, number
from lightning_nc.report.numbers import typeset
from lightning_nc.report.quantities import quantities
from lightning_nc.report.quantities.quantity import Quantity
from lightning_nc.report.runs import Run

_HEADLINES = {  # what the page begins with, by family
    "separation": ("rho", "pearson_r"),
    "nc": ("nc1", "nc2_etf_error", "nc3", "nc4", "accuracy"),
    "minority": ("cos_weights", "minority_accuracy"),
    "elasticity": ("relative_ratio",),
}


def tiles(run: Run, probe: str) -> str:
    """The last values of the most telling quantities.

    Args:
        run: The only one.
        probe: Its name.
    """
    shown = []
    for (family, of_probe), series in run.series.items():
        for quantity in quantities(family):
            wanted = of_probe == probe and quantity.name in _HEADLINES[family]
            if wanted and quantity.name in series.values:
                value = series.values[quantity.name][-1]
                ideal = f"ideal: {typeset(quantity.ideal)}" if quantity.ideal else ""
                shown.append(
                    f'<div class="tile"><span>{typeset(quantity.label)}</span>'
                    f"<strong>{number(value, is_worrying(quantity, value))}</strong>"
                    f"<small>{ideal}</small></div>"
                )
    return f'<div class="tiles">{"".join(shown)}</div>'


def comparison(probe: str, runs: Sequence[Run]) -> str:
    """The last values of all runs side by side; the best of each row is bold.

    Args:
        probe: Its name.
        runs: Several.
    """
    rows = []
    for family in _HEADLINES:
        having = [run.series.get((family, probe)) for run in runs]
        for quantity in quantities(family):
            last = [
                series.values[quantity.name][-1]
                if series and quantity.name in series.values
                else None
                for series in having
            ]
            if any(value is not None for value in last):
                rows.append(_compared(f"{family}/{probe}/{quantity.name}", quantity, last))
    head = "".join(f'<th scope="col">{escape(run.name)}</th>' for run in runs)
    return (
        '<div class="wide"><table class="comparison"><thead><tr><th scope="col">last value</th>'
        f'{head}<th scope="col">ideal</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _compared(key: str, quantity: Quantity, last: Sequence[float | None]) -> str:
    """A row of the comparison."""
    cost = quantity.cost
    defined = [value for value in last if value is not None and not math.isnan(value)]
    best = min(map(cost, defined)) if cost is not None and len(defined) > 1 else None
    cells = []
    for value in last:
        if value is None:
            cells.append('<td title="not logged">·</td>')
            continue
        is_best = best is not None and cost is not None and cost(value) == best
        text = number(value, is_worrying(quantity, value))
        cells.append(f"<td>{f'<strong>{text}</strong>' if is_best else text}</td>")
    head = f'<th scope="row"><b>{typeset(quantity.label)}</b> <code>{escape(key)}</code></th>'
    cells.append(f"<td>{typeset(quantity.ideal)}</td>")
    return f'<tr data-key="{escape(key)}">{head}{"".join(cells)}</tr>'
