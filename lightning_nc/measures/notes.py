"""Notes on values that are undefined or mislead, or that use fewer directions than possible."""

from collections.abc import Iterable, Mapping

from lightning_nc.functional.class_geometry import ClassGeometry
from lightning_nc.functional.input_checks import missing_directions
from lightning_nc.network.points import contained


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


def nesting_note(layers: Iterable[str]) -> dict[str, str]:
    """A note if some layers are parts of others, so that the list is no sequence of layers."""
    inside = [f"'{inner}' is in '{outer}'" for inner, outer in contained(layers).items()]
    if not inside:
        return {}
    more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
    return {
        "nesting": f"some layers contain others ({', '.join(inside[:3])}{more}), so D along them "
        "is not that of one layer after another, and rho and r do not test the law. Name layers of "
        'which none contains another; in a glob "*" stops at a dot.'
    }
