"""What the documents say is there, is there."""

import ast
import re
from pathlib import Path

import pytest

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
