"""The runner of the suite: what fails is reported with its cause, and hides nothing else."""

import json
import time
from pathlib import Path

from tests.gpu import __main__ as runner
from tests.gpu import lines, outcomes, table
from tests.gpu.device import only_our_warnings

pytestmark = only_our_warnings

BROKEN = """
import os, time
import pytest


def test_that_passes():
    pass


def test_that_fails():
    raise ValueError("so it is")


def test_that_is_skipped():
    pytest.skip("no such device")


def test_that_ends_the_process():
    os._exit(7)


def test_that_is_never_reached():
    pass
"""


def run(tmp_path, text, seconds=60):
    file = tmp_path / "test_of_a_kind.py"
    file.write_text(text)
    found = runner.run_tests({"a kind": file}, seconds, 1, tmp_path)["a kind"]
    return {test["test"].rpartition("::")[2]: (test["outcome"], test["cause"]) for test in found}


def test_what_fails_or_dies_is_told_with_its_cause(tmp_path):
    found = run(tmp_path, BROKEN)
    assert found.pop("test_that_passes") == ("passed", None)
    assert found.pop("test_that_fails") == ("failed", "ValueError: so it is")
    assert found.pop("test_that_is_skipped") == ("skipped", "no such device")
    outcome, cause = found.pop("test_that_ends_the_process")
    assert outcome == "failed"
    assert "ended with 7" in cause
    assert found == {}


def test_a_file_that_takes_too_long_is_ended_and_told(tmp_path):
    started = time.monotonic()
    found = run(tmp_path, "import time\n\n\ndef test_of_patience():\n    time.sleep(60)\n", 4)
    assert found == {"test_of_patience": ("failed", "the time was up")} or found == {
        "a kind": ("failed", "the time was up")  # if it takes longer to start
    }
    assert time.monotonic() - started < 30


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    found = run(tmp_path, "import a_module_that_is_not_there\n")
    assert any("a_module_that_is_not_there" in (cause or "") for _, cause in found.values())


def test_every_file_of_tests_is_run_but_those_of_the_suite_itself():
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    itself = {"test_runner.py", "test_table.py", "test_cost.py"}
    assert {*runner.TESTS.values()} == files - itself


def test_outcomes_are_of_the_last_line_but_failures_stay(tmp_path):
    known = [
        {"test": "a", "outcome": "started"},
        {"test": "a", "outcome": "failed", "cause": "x"},
        {"test": "a", "outcome": "passed"},
        {"test": "b", "outcome": "started"},
    ]
    (tmp_path / "o").write_text("".join(json.dumps(line) + "\n" for line in known))
    assert [t["outcome"] for t in outcomes.read(tmp_path / "o")] == ["failed", "started"]
    assert outcomes.read(tmp_path / "nothing") == []


def test_a_line_that_was_cut_is_left_out(tmp_path):
    lines.append(tmp_path / "lines", {"a": 1})
    with (tmp_path / "lines").open("a") as file:
        file.write('{"a": ')
    assert lines.read(tmp_path / "lines") == [{"a": 1}]


def test_answers_of_this_machine_become_a_page(tmp_path):
    file, answers, page = (tmp_path / name for name in ("test_it.py", "gpu.json", "page.md"))
    file.write_text("def test_it():\n    pass\n")
    told = ["--output", str(answers), "--minutes", "2", "--small", "--tests", str(file)]
    assert runner.main(told) == 0
    found = json.loads(answers.read_text())
    assert {row["section"] for row in found["rows"]} == set(table.SECTIONS)
    assert found["facts"]["torch"]
    table.main([str(answers), "--output", str(page)])
    text = page.read_text()
    assert f"| {file} | 1 | 0 | 0 |" in text
    assert all(f"### {name}" in text for name in table.NAMES.values())
