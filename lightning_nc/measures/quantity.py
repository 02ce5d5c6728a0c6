"""Quantities: the rows that every table, chart and page is made of."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from torch import Tensor

Best = Literal["low", "high", "near one", "low and positive"]


@dataclass(frozen=True)
class Panel:
    """A chart over epochs.

    Attributes:
        title: Title above the chart.
        caption: Text below the chart, in the report.
        logarithmic: Whether the vertical axis is logarithmic.
        references: Horizontal lines, each with its label and its value.
        terminal: Whether to mark the epochs from which the probe has no error.
    """

    title: str
    caption: str
    logarithmic: bool = False
    references: tuple[tuple[str, float], ...] = ()
    terminal: bool = False


@dataclass(frozen=True)
class Curve:
    """A quantity in a panel.

    Attributes:
        panel: The panel; quantities that share one are drawn together.
        label: Label in the legend.
        dashed: Whether it is the dashed partner of the curve before it.
        compared: Whether it is drawn where several runs are overlaid.
    """

    panel: Panel
    label: str
    dashed: bool = False
    compared: bool = True


@dataclass(frozen=True)
class Quantity:
    """One number that a measure logs, and the only place where it is described.

    Attributes:
        name: What follows ``{family}/{probe}/`` in its key.
        symbol: Its symbol in formulas, or its name in the papers.
        label: A short name for people.
        meaning: What the number means, in one sentence.
        ideal: Its ideal value; empty if there is none.
        worry: When to worry, and about what.
        caveat: What it costs, or what it does not tell; empty if there is nothing to add.
        best: Which values are better; None if none are.
        worry_below: Values up to this one are marked in the report.
        worry_above: Values from this one on are marked in the report.
        chart: Where it is drawn; None if it is not.
        headline: Whether it is among the first numbers of a page.
        function: The public function that has its formula, an example and its source, such as
            ``"functional.equinorm"``; empty if the meaning says it all.
        of: Computes the value from what the measure passes to its rows; it returns None if nothing
            is to be logged, such as a prediction that was not requested.

    Example:
        >>> rho = Quantity("rho", "rho", "Decay ratio", "Factor per layer.", best="low")
        >>> rho.cost(0.5) < rho.cost(0.8)
        True
    """

    name: str
    symbol: str
    label: str
    meaning: str
    ideal: str = ""
    worry: str = ""
    caveat: str = ""
    best: Best | None = None
    worry_below: float | None = None
    worry_above: float | None = None
    chart: Curve | None = None
    headline: bool = False
    function: str = ""
    of: Callable[[Any], Tensor | float | None] | None = None

    def cost(self, value: float) -> float:
        """A number that is smaller for a better value; NaN where no value is better."""
        if self.best == "high":
            return -value
        if self.best == "near one":
            return abs(value - 1)
        if self.best == "low and positive":  # any negative value is worse than any positive one
            return -1 / value if value else math.inf
        return value if self.best == "low" else math.nan

    def is_worrying(self, value: float) -> bool:
        """Whether a value alone indicates that something is wrong."""
        low, high = self.worry_below, self.worry_above
        return (low is not None and value <= low) or (high is not None and value >= high)

    def to_state(self) -> dict[str, Any]:
        """All fields but ``of``, as primitives that JSON can store."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "of"}
        return said | {"chart": None if self.chart is None else asdict(self.chart)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Quantity":
        """Read back what `to_state` returned, also from a version with more fields.

        Raises:
            TypeError, ValueError, LookupError, AttributeError: If the state is none of a quantity.
        """
        known = _known_fields(cls, state)
        known |= {name: require_text(name, known[name]) for name in _TEXTS if name in known}
        if known.get("best") not in (None, *get_args(Best)):
            raise ValueError(f"best is {known['best']!r}, none of {', '.join(get_args(Best))}")
        for name in ("worry_below", "worry_above"):
            known[name] = None if known.get(name) is None else float(known[name])
        chart = known.get("chart")
        if chart is not None:
            panel = _known_fields(Panel, chart["panel"])
            panel |= {name: require_text(name, panel[name]) for name in ("title", "caption")}
            references = panel.get("references", ())
            panel["references"] = tuple((require_text("label", a), float(b)) for a, b in references)
            curve = _known_fields(Curve, chart) | {"panel": Panel(**panel)}
            require_text("label", curve["label"])
            known["chart"] = Curve(**curve)
        return cls(**known)


def charts_of_rows(rows: Iterable[Quantity]) -> dict[Panel, dict[str, Curve]]:
    """The panels in the order of the rows, each with its curves by name of the quantity."""
    charts: dict[Panel, dict[str, Curve]] = {}
    for row in rows:
        if row.chart is not None:
            charts.setdefault(row.chart.panel, {})[row.name] = row.chart
    return charts


_TEXTS = ("name", "symbol", "label", "meaning", "ideal", "worry", "caveat", "function")


def require_text(name: str, value: Any) -> str:
    """Return a field of a state.

    Raises:
        TypeError: If it is no text.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, no text")
    return value


def _known_fields(kind: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a state that are fields of a class."""
    return {field.name: state[field.name] for field in fields(kind) if field.name in state}
