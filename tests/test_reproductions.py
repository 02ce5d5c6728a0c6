"""The page of reproductions, the files of results and the examples' judgements say the same."""

import importlib
import json
from pathlib import Path

import pytest

from tests.programs import run_python

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "docs" / "results").glob("*.json"))


@pytest.fixture(params=RESULTS, ids=lambda path: path.stem)
def kept(request, example):  # what is kept is judged by the examples
    return json.loads(request.param.read_text())


def judge(kept):
    return importlib.import_module(kept["example"]).judge


def test_the_page_is_made_from_the_files_of_results():
    done = run_python(ROOT / "docs" / "make_reproductions.py", "--check", timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_values_that_are_kept_give_the_verdicts_that_are_kept(kept):
    assert [verdict._asdict() for verdict in judge(kept)(kept["values"])] == kept["verdicts"]


def test_every_claim_that_holds_fails_for_a_control(kept):
    from verdicts import failed_controls

    for verdict in kept["verdicts"]:
        if verdict["holds"]:
            assert failed_controls(verdict["claim"], judge(kept), kept["controls"])


def test_it_is_known_what_a_result_was_made_with(kept):
    commits = kept["commit"].split(", ")
    assert {len(each) for each in commits} == {40}, "made from a working tree with changes"
    assert kept["versions"]["torch"]
    assert kept["seeds"]


CLAIMS = json.loads((ROOT / "docs" / "claims_of_tests.json").read_text())


@pytest.mark.parametrize("name", [t for c in CLAIMS for t in (*c["tests"], *c["controls"])])
def test_the_tests_that_assert_claims_exist(name):
    file, _, function = name.partition("::")
    assert f"\ndef {function}(" in (ROOT / file).read_text()


def test_every_claim_is_judged():
    judged = [v["claim"] for path in RESULTS for v in json.loads(path.read_text())["verdicts"]]
    numbers = {int(each.rstrip("abcdefghi")) for each in (*judged, *(c["claim"] for c in CLAIMS))}
    assert numbers == set(range(1, 56))
    assert all(each["controls"] for each in CLAIMS)


def test_other_seeds_join_those_that_are_kept(example, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from merge_results import merged

    kept = json.loads((ROOT / "docs" / "results" / "equi_separation_panels.json").read_text())

    def only(seeds, values):
        if seeds & values.keys():
            return {seed: values[seed] for seed in sorted(seeds & values.keys())}
        return {name: only(seeds, each) for name, each in values.items()}

    def of(*seeds):
        keys = set(map(str, seeds))
        parts = {key: only(keys, kept[key]) for key in ("values", "controls")}
        return kept | parts | {"seeds": list(seeds)}

    first, *others = kept["seeds"]
    assert merged(of(first), of(*others)) == kept
    with pytest.raises(SystemExit, match="settings of the two files are not the same"):
        merged(kept, kept | {"settings": {}})


def test_what_is_not_1_is_not_shown_as_1(example):
    span = example("verdicts").span
    assert span([0.996, 1.0], 2) == "0.996 to 1"
    assert span([-0.99962, -0.9959]) == "-0.9996 to -0.996"
    assert span([None]) == "nan"


def test_what_misses_a_threshold_is_not_shown_as_the_threshold(example):
    span = example("verdicts").span
    assert span([-0.9907839, -0.9796851], bound=-0.98) == "-0.991 to -0.9797"
    assert span([-0.98], bound=-0.98) == "-0.98"
