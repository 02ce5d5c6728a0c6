from pathlib import Path

import pytest

from tests.fashion_mnist import needs_fashion_mnist
from tests.programs import run_python

LONG = 1200  # seconds


@pytest.mark.slow
def test_the_demo_shows_a_table_and_says_where_the_figures_are(tmp_path):
    demo = run_python(
        "-m", "lightning_nc", "--epochs", "4", "--output", str(tmp_path), timeout=LONG
    )
    assert demo.returncode == 0, demo.stderr
    head, *rows = [line.split() for line in demo.stdout.splitlines()[-4:]]
    assert head[-2:] == ["elastic", "minority"]  # the table is the end
    assert [row[0] for row in rows] == ["0", "1", "4"]
    assert float(rows[-1][3]) < -0.9  # the law begins to hold
    shown = dict(line.split(":", 1) for line in demo.stdout.splitlines() if ":  " in line)
    for folder in shown["Figures"].split(", "):
        assert list(Path(folder.strip()).rglob("*.png"))
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 2


def reproduce(name, tmp_path, *options):
    example = run_python(f"examples/{name}.py", "--output", str(tmp_path), *options, timeout=LONG)
    assert example.returncode == 0, example.stdout + example.stderr
    assert (tmp_path / f"{name}.png").stat().st_size > 20_000


@pytest.mark.slow
@needs_fashion_mnist
@pytest.mark.parametrize(
    "name", ["equi_separation_fashion_mnist", "minority_collapse_fashion_mnist"]
)
def test_a_short_form_shows_on_fashion_mnist_what_can_be_shown_briefly(name, tmp_path):
    reproduce(name, tmp_path, "--short")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layer_peeled_norms", "neural_collapse", "simplex_symmetry"])
def test_a_short_form_shows_what_can_be_shown_briefly(name, tmp_path):
    reproduce(name, tmp_path, "--short")


@pytest.mark.slow
def test_the_predictions_of_the_layer_peeled_model_are_those_expected(tmp_path):
    reproduce("minority_collapse_theory", tmp_path, "--points", "31")


@pytest.mark.slow
def test_the_law_of_next_token_prediction_is_measured_in_a_gpt(tmp_path):
    # as small as this, it need not obey the law
    smaller = ["--characters", "100000", "--merges", "20", "--blocks", "3", "--probe", "60"]
    options = [*smaller, "--epochs", "2", "--seeds", "0", "--output", str(tmp_path)]
    example = run_python("examples/next_token_law.py", *options, timeout=LONG)
    assert "yes: CDNV falls" in example.stdout, example.stdout + example.stderr
    assert (tmp_path / "next_token_law.png").stat().st_size > 20_000
