"""Table cells: values rounded for people, and in full for machines."""

import math

from lightning_nc.report.numbers import At, for_people


def number(value: float, worrying: bool = False) -> str:
    """Return HTML of a value, rounded for people and in full for machines; a dash if undefined.

    Args:
        value: Value of a quantity; NaN if undefined.
        worrying: Whether to mark it.
    """
    if math.isnan(value):
        return '<data value="nan" class="undefined">&ndash; <small>undefined</small></data>'
    mark = '<span class="worry" title="see When to worry">▲</span> ' if worrying else ""
    return f'{mark}<data value="{value!r}">{for_people(value)}</data>'


def cell(label: str, at: At | None, worrying: bool = False) -> str:
    """Return HTML of a table cell with a value and its epoch.

    Args:
        label: Column name, shown on narrow screens.
        at: The value and its epoch; None if there is none.
        worrying: Whether to mark it.
    """
    if at is None:
        return f'<td data-label="{label}">·</td>'
    when = f"<small>epoch {at.epoch:g}</small>"
    return f'<td data-label="{label}">{number(at.value, worrying)} {when}</td>'
