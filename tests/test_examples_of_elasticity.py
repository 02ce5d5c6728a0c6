"""The examples of local elasticity; in a module of their own, to run beside the others."""

import pytest

from tests.fashion_mnist import needs_fashion_mnist
from tests.test_examples import run


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "local_elasticity_geometry",
        "local_elasticity_digits",
        "locally_elastic_stability",
        "neurashed",
    ],
)
def test_local_elasticity_is_reproduced(name, tmp_path):
    reproduce(name, tmp_path)


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


def reproduce(name, tmp_path, *options):
    example = run(f"examples/{name}.py", "--output", str(tmp_path), *options)
    assert example.returncode == 0, example.stdout + example.stderr
    assert (tmp_path / f"{name}.png").stat().st_size > 20_000
