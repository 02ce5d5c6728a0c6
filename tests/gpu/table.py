"""Make a page from the results of `python -m tests.gpu`, on one machine or several.

python -m tests.gpu.table FILE... [--output docs/benchmarks.md]
"""

import argparse
import json
from collections import Counter
from pathlib import Path

SECTIONS = {
    "networks": "Networks with random weights, and the samples on which they are measured.",
    "cost": "Time and memory of one measurement (`lightning_nc.measure` under bfloat16 autocast), "
    "compared with a bare forward sweep of the same loader, whose inputs are made on the device. "
    "The share of an epoch is for a measurement with the default of 100 samples per class.",
    "trainer": "Time of a measurement as the callbacks log it, with default settings.",
    "waiting": "How often the host waits for the device; the results name the lines of code.",
    "products": "Products of float64 matrices in a measurement.",
    "float64": "Matrix products of the size of class sums.",
    "gradients": "The tangent kernel of all outputs, in full float32 precision, against one "
    "forward and backward pass of the same samples as torch computes it by default.",
}
NAMES = {
    "networks": "Networks",
    "cost": "Cost of a measurement",
    "trainer": "Under a Trainer",
    "waiting": "Waiting for the device",
    "products": "Share of float64 products",
    "float64": "Float64 against float32",
    "gradients": "Gradients compared",
}


def page(found):
    """The page, from the results of each machine."""
    on_cards = any(each["facts"]["cuda"] for each in found)
    first = (
        "`make gpu` (`python -m tests.gpu`) checks on a device that measurements are exact, "
        "unobtrusive, deterministic, the same on several processes, and cheap. `make gpu-table` "
        "made this page from the results in `docs/benchmarks/`."
    )
    if not on_cards:
        first += (
            " No GPU was at hand: these numbers are from the same suite on a CPU at small sizes. "
            "They show that it runs, and say little about cost."
        )
    parts = ["# Benchmarks by `make gpu`", first]
    for each in sorted(found, key=lambda each: not each["facts"]["cuda"]):
        parts += machine(each)
    return "\n\n".join(parts) + "\n"


def machine(found):
    """A heading, and the results of one machine."""
    facts = found["facts"]
    versions = [f"{name} {facts[name]}" for name in facts if name not in NOT_VERSIONS]
    card = f"CUDA {facts['cuda']}, driver {facts['driver'] or 'unknown'}. " if facts["cuda"] else ""
    intro = f"{card}{', '.join(versions)}. The whole suite took {found['seconds']:.0f} s."
    intro = f"{intro} {found['note']}" if "note" in found else intro
    parts = [f"## {facts['device']}, {facts['date']}", intro, "### Tests", tests(found["tests"])]
    parts += troubles(found["tests"])
    for section, sentence in SECTIONS.items():
        rows = [row for row in found["rows"] if row["section"] == section]
        if rows:
            parts += [f"### {NAMES[section]}", sentence, table(rows)]
    return parts


NOT_VERSIONS = ("date", "device", "cuda", "driver")


def tests(by_file):
    """A table of the outcomes of the tests of each topic."""
    said = ["| what | passed | failed | skipped |", "|---|---|---|---|"]
    for name, of_file in by_file.items():
        ended = Counter(test["outcome"] for test in of_file)
        counts = (ended["passed"], ended["failed"], ended["skipped"])
        said.append(f"| {name} | {' | '.join(map(str, counts))} |")
    return "\n".join(said)


def troubles(by_file):
    """A list of failed tests, and of the reasons why tests were skipped."""
    every = [test for of_file in by_file.values() for test in of_file]
    failed = [f"- `{t['test']}`: {cell(t['cause'])}" for t in every if t["outcome"] == "failed"]
    skipped = Counter(t["cause"] for t in every if t["outcome"] == "skipped")
    parts = []
    if failed:
        parts += ["Failed:", "\n".join(failed)]
    if skipped:
        parts += ["Skipped:", "\n".join(f"- {cell(why)} ({n})" for why, n in skipped.items())]
    return parts


LINES_OF_CODE = ("places", "places beside")


def table(rows):
    """Rows with all their columns but lines of code; a row without numbers shows its cause."""
    named = dict.fromkeys(name for row in rows for name in row["numbers"])
    columns = [name for name in named if name not in LINES_OF_CODE]
    titles = ["", "measured", *columns]
    with_causes = any(row["cause"] for row in rows)
    if with_causes:
        titles.append("refused or failed")
    lines = [line(titles), line(["---"] * len(titles))]
    for row in rows:
        cells = [row["name"], row["what"], *(row["numbers"].get(name) for name in columns)]
        first_sentence = (row["cause"] or "").partition(". ")[0]
        lines.append(line([*cells, first_sentence] if with_causes else cells))
    return "\n".join(lines)


def line(cells):
    return f"| {' | '.join(map(cell, cells))} |"


def cell(value):
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def main(arguments=None):
    options = argparse.ArgumentParser()
    options.add_argument("files", nargs="+", type=Path, help="output of `python -m tests.gpu`")
    options.add_argument("--output", default=Path("docs/benchmarks.md"), type=Path)
    chosen = options.parse_args(arguments)
    found = [json.loads(path.read_text()) for path in chosen.files]
    chosen.output.write_text(page(found))
    print(chosen.output)


if __name__ == "__main__":
    main()
