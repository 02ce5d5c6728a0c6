"""Projects with heads of all kinds: each value is that of the reference, on features by hand."""

import pytest

from tests.projects import heads
from tests.projects.checks import check
from tests.projects.harness import Project


@pytest.mark.parametrize("project", heads.PROJECTS, ids=lambda each: each.name)
def test_every_value_is_that_of_the_reference(project: Project, tmp_path):
    check(project, tmp_path)
