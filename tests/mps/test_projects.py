"""Everyday projects on MPS: layers, values and messages are those of the table."""

import pytest
import torch

from tests.projects import table
from tests.projects.checks import check


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("project", table.PROJECTS, ids=lambda each: each.name)
def test_every_value_is_that_of_the_reference(project, tmp_path):
    check(project, tmp_path, "mps")
