"""What the documents say is there, is there."""

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests import nets
from tests.callbacks.test_logging import documented

ROOT = Path(__file__).parents[1]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
PROOFS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", GUARANTEES)))


@pytest.mark.parametrize(("file", "name"), PROOFS)
def test_every_guarantee_names_tests_that_exist(file, name):
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_guarantees_names_a_test():
    rows = [line for line in GUARANTEES.splitlines() if line.startswith("| ")]
    claims = [row for row in rows if not row.startswith(("| guarantee |", "| guard |"))]
    assert len(claims) > 20
    assert all("`tests/" in row for row in claims)


def explained(family):
    """Keys, or patterns of them, in the tables on a family and on every family."""
    numbers = (ROOT / "docs" / "numbers.md").read_text()
    sections = {part.split("\n")[0]: part for part in numbers.split("\n## ")}
    wanted = [title for title in sections if title.startswith((f"`{family}`", "In every"))]
    assert len(wanted) == 2
    rows = re.findall(r"^\| (`.*?) \|", "".join(map(sections.get, wanted)), re.MULTILINE)
    return [name.replace("…", "*") for row in rows for name in re.findall("`(.+?)`", row)]


@pytest.mark.parametrize("callback_class", nets.CALLBACKS)
def test_what_every_logged_key_means_is_said(callback_class):
    keys = documented(callback_class)
    assert len(keys) > 5
    patterns = explained(callback_class.family)
    names = [key.removeprefix(f"{callback_class.family}/{{p}}/") for key in keys]
    assert [n for n in names if not any(fnmatchcase(n, each) for each in patterns)] == []
