"""Notes on values that are undefined, or that use fewer directions than possible."""

from collections.abc import Mapping

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.input_checks import missing_directions


def rank_note(layers: Mapping[str, ClassGeometry]) -> dict[str, str]:
    """A note if the class means of some layers span fewer directions than they could."""
    missing = {name: missing_directions(g.rank, g.means) for name, g in layers.items()}
    short = [f"'{name}' ({directions})" for name, directions in missing.items() if directions]
    if not short:
        return {}
    more = f" and {len(short) - 5} more layers" if len(short) > 5 else ""
    return {
        "rank": "class means span fewer directions than they could at "
        f"{', '.join(short[:5])}{more}; D and NC1 use only those, and are undefined (NaN) if "
        "there are none."
    }
