"""Add other seeds to the results of an example, from a file that it wrote elsewhere.

``python examples/equi_separation_panels.py --seeds 2 --output other`` measures one seed beside
those that are kept, and ``python docs/merge_results.py other/equi_separation_panels.json`` joins it
to docs/results. The values are judged together; the file names the commits of all.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))  # the examples import each other by name

from verdicts import RESULTS, write  # noqa: E402


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The results of both; those of the same seed are of the second."""
    for key in ("example", "settings", "differs", "versions"):
        if one[key] != other[key]:
            sys.exit(f"{key} of the two files are not the same: {one[key]} and {other[key]}.")
    joined = one | {key: union(one[key], other[key]) for key in ("values", "controls")}
    joined["seeds"] = sorted({*one["seeds"], *other["seeds"]})
    commits = [commit for each in (one, other) for commit in each["commit"].split(", ")]
    joined["commit"] = ", ".join(dict.fromkeys(commits))
    judge = importlib.import_module(one["example"]).judge
    joined["verdicts"] = [verdict._asdict() for verdict in judge(joined["values"])]
    return joined


def union(one: Any, other: Any) -> Any:
    """Mappings joined at every level."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {**one, **{key: union(one.get(key), value) for key, value in other.items()}}
    return other


def main() -> None:
    """Merge a file into that of docs/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="results of the same example, of other seeds")
    other = json.loads(parser.parse_args().file.read_text())
    kept = json.loads((RESULTS / f"{other['example']}.json").read_text())
    write(merged(kept, other), RESULTS)


if __name__ == "__main__":
    main()
