"""Write docs/reproductions.md from docs/results/*.json, which the examples write.

``python docs/make_reproductions.py`` rewrites the page; ``--check`` changes nothing and fails if it
is out of date. No number is typed here: all are from the files of results.
"""

import argparse
import ast
import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "reproductions.md", ROOT / "docs" / "results"
OF_TESTS = ROOT / "docs" / "claims_of_tests.json"  # claims that need no training
sys.path.insert(0, str(ROOT / "examples"))  # the examples import each other by name

from verdicts import failed_controls  # noqa: E402

INTRODUCTION = """# What the talks and papers show, reproduced

Of {all} claims, {holding} hold here and {failing} were not found in these runs. An example judged
each claim by numbers that it measured; `make examples` measures them again. The same judgement must
fail on controls without the phenomenon. Claims that follow from formulas are asserted by tests.
`make tables` makes this page from the files in [results](results).
"""

TESTED = """## Claims that tests assert

They follow from formulas, which `make test` computes. The tests in the last column show that the
claim fails without its condition.
"""
KINDS_OF_TESTS = ("tests", "controls")

OTHERS = """## Examples that judge without keeping results

Their exit status says whether their claims are true.
"""


def results() -> list[dict[str, Any]]:
    """The files of results, by the smallest number of their claims."""
    kept = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return sorted(kept, key=lambda each: min(order(v["claim"]) for v in each["verdicts"]))


def order(claim: str) -> tuple[int, str]:
    """Sort ``9`` before ``10`` before ``10a``."""
    digits = "".join(letter for letter in claim if letter.isdigit())
    return int(digits), claim


def page() -> str:
    """The whole page."""
    kept = results()
    of_tests = json.loads(OF_TESTS.read_text())
    rows = [row for each in kept for row in summary(each)]
    link = "[tests](#claims-that-tests-assert)"
    rows += [(each["claim"], each["talk"], "holds", "", link) for each in of_tests]
    rows.sort(key=lambda row: order(row[0]))
    head = ("claim", "in the talk or the paper", "verdict here", "seeds", "example")
    judged = {each["example"] for each in kept}
    others = [path for path in sorted((ROOT / "examples").glob("*.py")) if path.stem not in judged]
    holding = sum(verdict == "holds" for _, _, verdict, *_ in rows)
    counts = {"all": len(rows), "holding": holding, "failing": len(rows) - holding}
    parts = [INTRODUCTION.format(**counts), table(head, rows), tested(of_tests)]
    parts += [section(each) for each in kept]
    found = [*filter(None, map(unjudged, others))]
    return "\n".join([*parts, *([OTHERS, *found] if found else [])])


def tested(claims: list[dict[str, Any]]) -> str:
    """The tests that assert claims."""
    head = ("claim", "asserted by", "and without it")
    rows = [
        (each["claim"], *(", ".join(f"`{test}`" for test in each[key]) for key in KINDS_OF_TESTS))
        for each in claims
    ]
    return f"{TESTED}\n{table(head, rows)}"


def unjudged(example: Path) -> str:
    """What an example with a figure says of itself, if no file has its results."""
    figure = ROOT / "docs" / "figures" / f"{example.stem}.png"
    if not figure.exists():
        return ""
    doc = ast.get_docstring(ast.parse(example.read_text())) or ""
    source = doc.partition("Source:")[0].replace("::\n", ":\n").strip()
    return f"### {example.stem}\n\n{source}\n\n![{example.stem}](figures/{figure.name})\n"


def summary(kept: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    """A row for each claim of an example."""
    name = kept["example"]
    for verdict in kept["verdicts"]:
        link = f"[{name}](#{name})"
        seeds = str(len(kept["seeds"]))
        yield verdict["claim"], verdict["talk"], said(verdict), seeds, link


def section(kept: dict[str, Any]) -> str:
    """All about one example."""
    name = kept["example"]
    judge = importlib.import_module(name).judge
    verdicts = kept["verdicts"]
    failed = [failed_controls(v["claim"], judge, kept["controls"]) for v in verdicts]
    rows = [
        (v["claim"], v["talk"], v["statement"], v["numbers"], said(v), ", ".join(controls))
        for v, controls in zip(verdicts, failed, strict=True)
    ]
    settings = "; ".join(f"{key} {value}" for key, value in kept["settings"].items())
    versions = ", ".join(f"{key} {value}" for key, value in kept["versions"].items())
    seeds = ", ".join(map(str, kept["seeds"]))
    head = ("claim", "in the talk", "must be true here", "found", "verdict", "fails for")
    commits = ", ".join(f"`{each[:12]}{each[40:]}`" for each in kept["commit"].split(", "))
    lines = [
        f"## {name}\n",
        f"`python examples/{name}.py`: {first_line(name)}\n",
        table(head, rows),
        f"Settings: {settings}. Seeds {seeds}.\n",
        f"What differs: {kept['differs']}\n",
        f"Made at commit {commits} with {versions}.\n",
    ]
    lines += [f"![{name}](figures/{figure})\n" for figure in kept["figures"]]
    return "\n".join(lines)


def said(verdict: dict[str, Any]) -> str:
    """A verdict in words."""
    return "holds" if verdict["holds"] else "**not found**"


def first_line(name: str) -> str:
    """What an example says of itself."""
    return (importlib.import_module(name).__doc__ or "").split("\n")[0]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    cells = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def main() -> None:
    """Write the page, or say that it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    if not parser.parse_args().check:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit("docs/reproductions.md is out of date. Run: make tables")


if __name__ == "__main__":
    main()
