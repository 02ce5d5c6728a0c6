"""The examples of local elasticity; in a module of their own, to run beside the others."""

import pytest

from tests.fashion_mnist import needs_fashion_mnist
from tests.test_examples import reproduce


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["local_elasticity_digits", "local_elasticity_geometry", "locally_elastic_stability"],
)
def test_a_short_form_shows_what_can_be_shown_briefly(name, tmp_path):
    reproduce(name, tmp_path, "--short")


@pytest.mark.slow
def test_neurashed_is_reproduced(tmp_path):
    reproduce("neurashed", tmp_path)


@pytest.mark.slow
@needs_fashion_mnist
@pytest.mark.parametrize(
    ("name", "shorter"),
    [
        ("label_aware_kernel", []),
        ("local_elasticity_clustering", ["--pairs", "0:2:3:6", "0:3:2:6", "2:3:4:6"]),
    ],
)
def test_local_elasticity_is_reproduced_on_fashion_mnist(name, shorter, tmp_path):
    reproduce(name, tmp_path, *shorter)
