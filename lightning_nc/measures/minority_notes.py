"""Notes on quantities of minority collapse that are undefined, or not logged at all."""

from collections.abc import Mapping

from lightning_nc.measures.minority_collapse_quantities import QUANTITIES, Minority
from lightning_nc.measures.notes import that_are

_PREDICTED = ("predicted_cos", "critical_ratio")
NO_MINORITY = (
    "the largest class has less than 1.5 times as many training samples as the smallest, so there "
    "are no minority classes"
)
_OF_COUNTS = ("imbalance_ratio", *_PREDICTED)


def minority_notes(
    values: Mapping[str, float], found: Minority, why_unknown: str, theory: bool = False
) -> dict[str, str]:
    """Why values are NaN or missing, by topic.

    Args:
        values: Values by name of the quantity.
        found: What they were computed from.
        why_unknown: Why class counts stay unknown; empty if they are known, or may become known.
        theory: Whether the prediction of the layer-peeled model was requested.
    """
    notes, undefined = {}, [name for name, value in values.items() if value != value]
    if why_unknown:
        missing = (
            that_are([name for name in _OF_COUNTS if name in undefined], "undefined (NaN)")
            if len(found.B)
            else "imbalance_ratio and all that needs minority classes are not logged"
        )
        notes["counts"] = f"{missing}: {why_unknown}; give class_counts=[...]."
    elif found.n is not None and len(found.B) == 0:
        logged = (*values, *(() if theory else _PREDICTED))
        absent = [row.name for row in QUANTITIES if row.name not in logged]
        notes["no minority"] = (
            f"{that_are(absent, 'not logged')}: {NO_MINORITY}; to compare classes all the same, "
            "name them with minority=[...]."
        )
    if len(found.B) == 1:
        pairs = [name for name in undefined if name.startswith("cos_")]
        notes["minority of 1"] = (
            f"{that_are(pairs, 'undefined (NaN)')}: class {int(found.B)} alone is the minority, so "
            "there is no pair of minority classes."
        )
    return notes
