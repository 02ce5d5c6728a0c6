"""What the documents say is there, is there."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from lightning_nc.measures import MEASURES
from tests import nets
from tests.programs import run_python

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


def test_what_is_said_of_the_numbers_is_what_their_rows_say():
    done = run_python(ROOT / "docs" / "make_tables.py", "--check", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("callback_class", nets.CALLBACKS)
def test_every_row_says_what_there_is_to_say(callback_class):
    measure = callback_class().measure
    for row in (*measure.quantities, *measure.layer_quantities):
        assert row.label
        assert row.meaning.endswith(".")
        assert row.worry.endswith(".")
        assert row.of is not None
    assert any(row.headline for row in measure.quantities)
    assert any(row.chart for row in measure.quantities)


ROWS = [row for m in MEASURES for row in (*m.quantities, *m.layer_quantities) if row.function]


@pytest.mark.parametrize("function", sorted({row.function for row in ROWS}))
def test_the_function_of_a_row_is_public_and_has_an_example_and_a_source(function):
    module, name = function.split(".")
    found = getattr(importlib.import_module(f"lightning_nc.{module}"), name)
    assert {"Example:", "Source:"} <= set(found.__doc__.split())


@pytest.mark.parametrize("measure", MEASURES)
def test_what_every_logged_key_means_is_on_the_page_of_numbers(measure):
    numbers = (ROOT / "docs" / "numbers.md").read_text()
    for row in measure.quantities:
        assert f"| `{row.name}` |" in numbers
