"""A value in a table: for people, and in full for machines."""

import math

from lightning_nc.report.numbers import At, for_people


def number(value: float, worrying: bool = False) -> str:
    """A value for people, and in full for machines; a dash where it is undefined.

    Args:
        value: Of a quantity.
        worrying: Whether to mark it.
    """
    if math.isnan(value):
        return '<data value="nan" class="undefined">&ndash; <small>undefined</small></data>'
    mark = '<span class="worry" title="see: when to worry">▲</span> ' if worrying else ""
    return f'{mark}<data value="{value!r}">{for_people(value)}</data>'


def cell(label: str, at: At | None, worrying: bool = False) -> str:
    """A cell of a table, with the epoch.

    Args:
        label: Of its column, for narrow screens.
        at: The value; None if there is none.
        worrying: Whether to mark it.
    """
    if at is None:
        return f'<td data-label="{label}">·</td>'
    when = f"<small>epoch {at.epoch:g}</small>"
    return f'<td data-label="{label}">{number(at.value, worrying)} {when}</td>'
