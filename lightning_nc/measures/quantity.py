"""What there is to say about a number: the one row that every table, chart and page is made of."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from torch import Tensor

Best = Literal["low", "high", "near one", "low and positive"]


@dataclass(frozen=True)
class Panel:
    """A chart over epochs.

    Attributes:
        title: Above it.
        caption: Below it, in the report.
        logarithmic: Whether its vertical axis is.
        references: Horizontal lines: what they say, and where they are.
        terminal: Whether to mark from when on the probe has no error.
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
        label: In its legend.
        dashed: Whether it is the dashed partner of the curve before.
        compared: Whether it is drawn where several runs are overlaid.
    """

    panel: Panel
    label: str
    dashed: bool = False
    compared: bool = True


@dataclass(frozen=True)
class Quantity:
    """One number that a measure logs. Nothing says of it a second time what is said here.

    Attributes:
        name: What follows ``{family}/{probe}/`` in its key.
        symbol: As in formulas, or as it is called in the papers.
        label: For people.
        meaning: What the number means, in one sentence.
        ideal: Its ideal value; empty if there is none.
        worry: When to worry, and about what.
        caveat: What it costs, or what it does not tell; empty if there is nothing to add.
        best: Which of two values is better; None if neither is.
        worry_below: From here downwards a value is marked in the report.
        worry_above: From here upwards a value is marked.
        chart: Where it is drawn; None for nowhere.
        headline: Whether it is among the first numbers of a page.
        of: Makes the value of what the measure gives to its rows; None means that it is not
            logged, such as predictions that were not asked for.

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
    of: Callable[[Any], Tensor | float | None] | None = None

    def cost(self, value: float) -> float:
        """A number that is smaller for a better value; NaN where no value is better."""
        if self.best == "high":
            return -value
        if self.best == "near one":
            return abs(value - 1)
        if self.best == "low and positive":  # a negative one is worse than any positive one
            return -1 / value if value else math.inf
        return value if self.best == "low" else math.nan

    def is_worrying(self, value: float) -> bool:
        """Whether a value by itself says that something is wrong."""
        low, high = self.worry_below, self.worry_above
        return (low is not None and value <= low) or (high is not None and value >= high)

    def to_state(self) -> dict[str, Any]:
        """All that is said of it, as primitives that JSON can hold."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "of"}
        return said | {"chart": None if self.chart is None else asdict(self.chart)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Quantity":
        """Read back what `to_state` wrote, also by a version that wrote more."""
        known = _known_fields(cls, state)
        chart = known.get("chart")
        if chart is not None:
            panel = _known_fields(Panel, chart["panel"])
            panel["references"] = tuple(map(tuple, panel.get("references", ())))
            known["chart"] = Curve(**(_known_fields(Curve, chart) | {"panel": Panel(**panel)}))
        return cls(**known)


def _known_fields(kind: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """What of a state a class has fields for."""
    return {field.name: state[field.name] for field in fields(kind) if field.name in state}
