"""Families of quantities as a page shows them: title, question and rows."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning_nc.measures.measure import Measure
from lightning_nc.measures.quantity import Quantity, require_text


class Family(NamedTuple):
    """The names and rows of a measure, without the measure itself.

    Attributes:
        name: The first part of logged keys.
        title: Title of the family on a page.
        question: The question that it answers.
        quantities: A row per quantity.
        layer_quantities: A row per quantity of each layer.
    """

    name: str
    title: str
    question: str
    quantities: tuple[Quantity, ...]
    layer_quantities: tuple[Quantity, ...] = ()

    @classmethod
    def of(cls, measure: Measure | type[Measure]) -> "Family":
        """The family of a measure."""
        return cls(
            measure.family,
            measure.title,
            measure.question,
            measure.quantities,
            measure.layer_quantities,
        )

    @classmethod
    def of_names(cls, name: str, quantities: Iterable[str]) -> "Family":
        """A family of which only the name and the names of the quantities are known."""
        rows = (Quantity(each, "", each, "") for each in quantities)
        return cls(name, name, "", tuple(rows), (Quantity("", "", "value", ""),))

    def to_state(self) -> dict[str, Any]:
        """Primitives that JSON can store."""
        rows = {field: [row.to_state() for row in getattr(self, field)] for field in self._rows()}
        return {"name": self.name, "title": self.title, "question": self.question} | rows

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Family":
        """Read back what `to_state` returned.

        Raises:
            TypeError, ValueError, LookupError, AttributeError: If the state is none of a family.
        """
        rows = {field: tuple(map(Quantity.from_state, state[field])) for field in cls._rows()}
        name, title, question = (
            require_text(field, state[field]) for field in ("name", "title", "question")
        )
        return cls(name, title, question, **rows)

    @staticmethod
    def _rows() -> tuple[str, str]:
        return "quantities", "layer_quantities"


_FILE = "lightning_nc.json"


def write_families(folder: Path, families: Iterable[Family]) -> None:
    """Write a file that describes families, for a report that does not know them.

    Args:
        folder: Where to write it; families that are described there already are kept.
        families: The families to add.
    """
    try:
        known = {family.name: family for family in load_families(folder)}
    except Exception:  # missing or damaged: it is written anew
        known = {}
    wanted = known | {family.name: Family.from_state(family.to_state()) for family in families}
    if wanted != known:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps([family.to_state() for family in wanted.values()], indent=1)
        Path(folder, _FILE).write_text(text, encoding="utf-8")


def load_families(folder: Path) -> list[Family]:
    """Return the families described in a folder.

    Raises:
        OSError: If there is no such file, or it cannot be read.
        Exception: If it does not describe families.
    """
    states = json.loads(Path(folder, _FILE).read_text(encoding="utf-8"))
    return [Family.from_state(state) for state in states]
