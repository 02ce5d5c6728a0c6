"""The table of projects is that of their rows, and a wrong row is noticed."""

from dataclasses import replace

import pytest

from tests.projects import table
from tests.projects.checks import check_run
from tests.projects.harness import AS_IT_IS, trained
from tests.projects.heads import PROJECTS


def test_the_page_shows_the_rows_of_all_projects():
    page = table.PAGE.read_text()
    assert len(table.PROJECTS) > 25
    assert [each.name for each in table.PROJECTS if f"\n| {each.name} | " not in page] == []
    assert page == table.written(), "Run: make tables"


RIGHT = next(project for project in PROJECTS if project.name == "LoRA on the classifier")
DOUBLED = AS_IT_IS._replace(take=lambda h, _: h.flatten(1) * (1 + h.flatten(1)))
WRONG = {
    "another layer": {"layers": dict.fromkeys(["input", "net.1", "net.2"], AS_IT_IS)},
    "other features": {"layers": {**RIGHT.layers, "net.2": DOUBLED}},
    "other last-layer features": {"last_pooling": DOUBLED},
    "a head without its adapter": {
        "rows": lambda module, _: (module.net[4].base.weight, module.net[4].base.bias)
    },
    "another head": {"heads": {"train": "net.3"}},
    "another pooling": {"layers": {**RIGHT.layers, "net.2": AS_IT_IS._replace(words="a mean")}},
    "another number of classes": {"classes": 3},
    "something that is not said": {"said": ["found no head"]},
    "a value that is defined": {"undefined": ["nc3"]},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(RIGHT, tmp_path_factory.mktemp("run"), True)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_row_is_noticed(wrong, run):
    check_run(RIGHT, run)
    with pytest.raises(AssertionError):
        check_run(replace(RIGHT, **wrong), run)
