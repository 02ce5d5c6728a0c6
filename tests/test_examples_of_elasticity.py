"""The examples of local elasticity; in a module of their own, to run beside the others."""

import json

import pytest

from tests.fashion_mnist import needs_fashion_mnist
from tests.programs import run_python
from tests.test_examples import LONG, reproduce


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["local_elasticity_geometry", "locally_elastic_stability"],
)
def test_a_short_form_shows_what_can_be_shown_briefly(name, tmp_path):
    reproduce(name, tmp_path, "--short")


@pytest.mark.slow
def test_neurashed_is_reproduced(tmp_path):
    reproduce("neurashed", tmp_path, "--seeds", "0")


@pytest.mark.slow
@needs_fashion_mnist
@pytest.mark.parametrize(
    ("name", "options", "claims"),
    [
        ("local_elasticity_digits", [], {"36a"}),
        ("label_aware_kernel", [], {"38a", "39", "40", "41a"}),
        ("local_elasticity_clustering", ["--pairs", "1:6:3:0", "2:8:4:6"], {"37a"}),
    ],
)
def test_a_short_form_shows_some_of_its_claims(name, options, claims, tmp_path):
    told = ["--output", tmp_path, "--short", *options]
    example = run_python(f"examples/{name}.py", *told, timeout=LONG)
    assert (tmp_path / f"{name}.png").stat().st_size > 20_000, example.stdout + example.stderr
    verdicts = json.loads((tmp_path / f"{name}.json").read_text())["verdicts"]
    assert claims <= {each["claim"] for each in verdicts if each["holds"]}, example.stdout
