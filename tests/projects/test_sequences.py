"""Projects on sequences: each value is that of the reference, on features taken by hand."""

import pytest

from tests.projects import sequences
from tests.projects.checks import check
from tests.projects.harness import Project


@pytest.mark.parametrize("project", sequences.PROJECTS, ids=lambda each: each.name)
def test_every_value_is_that_of_the_reference(project: Project, tmp_path):
    check(project, tmp_path)
