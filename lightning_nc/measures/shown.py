"""Measurements as notebooks and consoles show them: one line, an HTML table, a pandas frame."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning_nc.measures.bookkeeping import BOOKKEEPING

if TYPE_CHECKING:
    from pandas import DataFrame

Frame: TypeAlias = "DataFrame"

_VALUES = 3  # most values in one line
_BOOKKEEPING = tuple(f"/{row.name}" for row in BOOKKEEPING)


def quantities_of(keys: Iterable[str]) -> list[str]:
    """The keys of quantities of the whole network, without those of layers and bookkeeping."""
    return [
        key
        for key in keys
        if not key.partition("/")[0].endswith("_layers") and not key.endswith(_BOOKKEEPING)
    ]


def rounded(value: float, digits: int = 4) -> str:
    """A value with a few digits, whose zeros at the end stay where they are those of rounding.

    An accuracy of 1 begins the terminal phase of training, and one of 0.99996 does not.

    Example:
        >>> rounded(1.0), rounded(0.99996), rounded(0.127), rounded(0.12704)
        ('1', '1.000', '0.127', '0.1270')
    """
    text = f"{value:.{digits}g}"
    # loggers keep seven digits of 0.127 at least
    if not math.isfinite(value) or math.isclose(float(text), value, rel_tol=1e-7):
        return text
    return f"{value:#.{digits}g}".removesuffix(".")


def in_one_line(values: Mapping[str, float]) -> str:
    """The first few quantities with their values, and how many values there are."""
    shown = [f"{key}={rounded(values[key])}" for key in quantities_of(values)[:_VALUES]]
    left_out = len(values) - len(shown)
    return ", ".join([*shown, f"{left_out} more" if left_out else ""]).removesuffix(", ")


def html_table(rows: Iterable[Sequence[str]], columns: Sequence[str] = ()) -> str:
    """An HTML table, the first cell of each row in bold."""
    left = "text-align: left"
    head = "".join(f'<th style="{left}">{escape(each)}</th>' for each in columns)
    lines = [f"<tr>{head}</tr>"] if columns else []
    for first, *others in rows:
        cells = "".join(f'<td style="{left}">{escape(each)}</td>' for each in others)
        name = f'<th style="{left}; white-space: nowrap">{escape(first)}</th>'
        lines.append(f"<tr>{name}{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def frame_of(rows: Sequence[Mapping[str, Any]]) -> Frame:
    """Rows of values by column as a pandas frame; NaN where a row has no value.

    Raises:
        ModuleNotFoundError: If pandas is not installed; the message names the extra to install.
    """
    try:
        from pandas import DataFrame
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise  # a dependency of pandas is missing
        raise ModuleNotFoundError(
            "frames need pandas, which is not installed. Run pip install "
            "'lightning-neural-collapse[notebook]'.",
            name="pandas",
        ) from error
    columns = dict.fromkeys(column for row in rows for column in row)
    return DataFrame(rows, columns=[*columns])
