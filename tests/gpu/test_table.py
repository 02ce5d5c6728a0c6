"""The page that is made from the results."""

import json
from pathlib import Path

from tests.gpu import table
from tests.gpu.device import only_our_warnings

pytestmark = only_our_warnings

FACTS = {"date": "2026-01-02", "device": "a CPU", "cuda": None, "driver": None, "python": "3.12.1"}
ROW = {"section": "cost", "name": "a net", "what": "NC", "numbers": {"seconds": 0.12345}}


def found(**facts):
    tests = [
        {"test": "t.py::test_a", "outcome": "passed", "cause": None},
        {"test": "t.py::test_b", "outcome": "failed", "cause": "AssertionError: 1 | 2"},
        {"test": "t.py::test_c", "outcome": "skipped", "cause": "no CUDA device: fp16"},
    ]
    rows = [{**ROW, "cause": None}, {**ROW, "what": "D", "numbers": {}, "cause": "too wide"}]
    return {"facts": FACTS | facts, "seconds": 9.0, "tests": {"exact": tests}, "rows": rows}


def test_the_page_tells_numbers_causes_and_that_there_was_no_card(tmp_path):
    (tmp_path / "cpu.json").write_text(json.dumps(found()))
    page = tmp_path / "page.md"
    table.main([str(tmp_path / "cpu.json"), "--output", str(page)])
    text = page.read_text()
    assert text.startswith("# Benchmarks by `make gpu`\n")
    assert "`make gpu`" in text.split("\n\n")[1]
    assert "No GPU was at hand" in text.split("\n\n")[1]
    assert "| exact | 1 | 1 | 1 |" in text
    assert "- `t.py::test_b`: AssertionError: 1 \\| 2" in text
    assert "- no CUDA device: fp16 (1)" in text
    assert "| a net | NC | 0.123 |  |" in text
    assert "| a net | D |  | too wide |" in text


def test_a_page_of_a_card_has_it_first_and_does_not_excuse_itself():
    text = table.page([found(), found(device="NVIDIA H100", cuda="12.8", driver="570.1")])
    assert "No GPU was at hand" not in text
    assert "CUDA 12.8, driver 570.1" in text
    assert text.index("## NVIDIA H100") < text.index("## a CPU")


def test_the_page_in_docs_is_made_of_the_results_in_docs():
    docs = Path(__file__).parents[2] / "docs"
    found = [json.loads(path.read_text()) for path in sorted(docs.glob("benchmarks/*.json"))]
    assert table.page(found) == (docs / "benchmarks.md").read_text()
