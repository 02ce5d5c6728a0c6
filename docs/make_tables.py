"""Generate all tables and lists of logged quantities from the rows of the measures.

``python docs/make_tables.py`` rewrites the tables of docs/keys.md and docs/numbers.md and the lists
in the docstrings of the callbacks; ``--check`` changes nothing and fails if anything is out of
date.
"""

import argparse
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from lightning_nc.measures import MEASURES, Quantity
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.measures.family import Family

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_nc" / "callbacks"
MARKED = re.compile(r"(<!-- quantities of (\w+) -->\n\n).*?(\n\n<!-- end -->)", re.DOTALL)
LISTED = re.compile(r"    Logged under these keys.*\n\n(?:    (?:- |  )\S.*\n)+")
# files of measures are called as those of their callbacks
CALLBACKS = {measure.__module__.rpartition(".")[2]: measure for measure in MEASURES}
FAMILIES = [Family.of(measure) for measure in CALLBACKS.values()]


def keys_of(family: Family) -> Iterator[tuple[str, Quantity]]:
    """Yield the keys of a family and their quantities, without those of bookkeeping."""
    for row in family.quantities:
        yield f"{family.name}/{{p}}/{row.name}", row
    for row in family.layer_quantities:
        name = f"/{row.name}" if row.name else ""
        yield f"{family.name}_layers/{{p}}/{{layer}}{name}", row


def keys_table() -> str:
    """The table of docs/keys.md: every key, what it means, and its ideal."""
    rows = [
        (f"`{key}`", row.meaning, row.ideal) for family in FAMILIES for key, row in keys_of(family)
    ]
    rows += [(f"`{{family}}/{{p}}/{row.name}`", row.meaning, row.ideal) for row in BOOKKEEPING]
    return markdown(("key", "what it means", "ideal"), rows)


def numbers_table(name: str) -> str:
    """A table of docs/numbers.md: the keys of a family, what they mean, and when to worry."""
    if name == "bookkeeping":
        keyed = [(row.name, row) for row in BOOKKEEPING]
    else:
        (family,) = (each for each in FAMILIES if each.name == name)
        keyed = [(key.removeprefix(f"{name}/{{p}}/"), row) for key, row in keys_of(family)]
    rows = [
        (f"`{key}`", row.symbol, " ".join(filter(None, [row.meaning, row.caveat])), row.worry)
        for key, row in keyed
    ]
    return markdown(("key", "symbol", "what it means", "when to worry"), rows)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table with typeset symbols.

    Args:
        head: Titles of the columns.
        rows: Cells of each row.
    """
    head = list(head)
    lines = [head, ["---"] * len(head), *(map(typeset, row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def typeset(cell: str) -> str:
    """Replace names of Greek letters, and hyphens before digits, by symbols, except in code."""
    if cell.startswith("`"):
        return cell
    for word in ("rho", "alpha", "beta"):
        letter = unicodedata.lookup(f"GREEK SMALL LETTER {word.upper()}")
        cell = re.sub(rf"\b{word}\b", letter, cell)
    cell = cell.replace("Sigma", "\N{GREEK CAPITAL LETTER SIGMA}").replace("^+", "⁺")
    return re.sub(r"(?<![\w^])-(?=\d)", "\N{MINUS SIGN}", cell)


def docstring_list(family: Family) -> str:
    """The list of keys and their meanings in the docstring of a family's callback."""
    intro = "Logged under these keys, with the name of the probe for ``{p}``:"
    items = [f"- ``{key}``: {row.meaning}" for key, row in keys_of(family)]
    book = ", ".join(f"``{row.name}``" for row in BOOKKEEPING)
    items.append(f"- ``{family.name}/{{p}}/...``: {book} of each measurement.")
    wrapped = [textwrap.fill(item, 96, subsequent_indent="  ") for item in items]
    return textwrap.indent("\n".join([intro, "", *wrapped]) + "\n", "    ")


def written() -> dict[Path, str]:
    """The files with generated parts, by path, with the text that they should have."""
    files = {}
    for name in ("docs/keys.md", "docs/numbers.md"):
        files[ROOT / name] = MARKED.sub(_table, (ROOT / name).read_text())
    for module, measure in CALLBACKS.items():
        path, listed = PACKAGE / f"{module}.py", docstring_list(Family.of(measure))
        files[path] = LISTED.sub(lambda _, listed=listed: listed, path.read_text(), count=1)
    return files


def _table(match: re.Match[str]) -> str:
    start, name, end = match.groups()
    return start + (keys_table() if name == "all" else numbers_table(name)) + end


def main() -> None:
    """Write the files, or print which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    stale = {path: text for path, text in written().items() if path.read_text() != text}
    for path, text in stale.items():
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text)
    if stale and check:
        sys.exit("Run: make tables")


if __name__ == "__main__":
    main()
