"""Projects whose batches are of other forms: each value is that of the reference, by hand."""

import pytest

from tests.projects import batches
from tests.projects.checks import check
from tests.projects.harness import Project


@pytest.mark.parametrize("project", batches.PROJECTS, ids=lambda each: each.name)
def test_every_value_is_that_of_the_reference(project: Project, tmp_path):
    check(project, tmp_path)
