"""Everyday projects on a card: layers, values and messages are those of the table."""

import pytest
import torch

from tests.gpu.device import needs_cuda, only_our_warnings, tensor_float_32
from tests.projects import table
from tests.projects.checks import check


@only_our_warnings
@needs_cuda("tests/projects trains them on the CPU")
@pytest.mark.parametrize("project", table.PROJECTS, ids=lambda each: each.name)
def test_every_value_is_that_of_the_reference(project, tmp_path):
    torch.use_deterministic_algorithms(True, warn_only=True)  # where there is one
    with tensor_float_32(False):
        check(project, tmp_path, "gpu")
