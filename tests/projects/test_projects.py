"""Everyday projects: each value is that of the reference, on features taken by hand."""

import pytest

from tests.projects import positions, table
from tests.projects.checks import check
from tests.projects.harness import Project, trained


@pytest.mark.parametrize("project", table.PROJECTS, ids=lambda each: each.name)
def test_every_value_is_that_of_the_reference(project: Project, tmp_path):
    check(project, tmp_path)


def test_what_is_said_of_a_language_model_that_begins_to_learn_is_so(tmp_path):
    (project,) = (each for each in positions.PROJECTS if each.name == positions.ON_A_TEXT)
    history = trained(project, tmp_path, True).callbacks[0].history
    assert [measurement.step for measurement in history] == [0, 26, 53]
    assert history[0].values["nc/train/nc1"] == pytest.approx(330, rel=0.05)
    for name, before, after in [
        ("nc3", 1.9, 1.1),
        ("cdnv", 9.8, 4.1),
        ("accuracy", 0.02, 0.28),
    ]:
        key = f"nc/train/{name}"
        assert history[0].values[key] == pytest.approx(before, rel=0.2)
        assert history[-1].values[key] == pytest.approx(after, rel=0.2)
