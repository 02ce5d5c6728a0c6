"""What README.md and the pages it leads to show can be run as it stands."""

import ast
import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import MeasureCallback, check
from lightning_nc.demo import DigitsClassifier
from tests import nets
from tests.programs import run_python

ROOT = Path(__file__).parents[1]
ABSOLUTE = re.compile(r"(?<=\]\()https://[^)]+?/(?:raw|blob)/[^/]+/")  # as a release has them
README = ABSOLUTE.sub("", (ROOT / "README.md").read_text())
NAMES = ("options", "own_measures", "theory")
PAGES = {name: (ROOT / f"docs/{name}.md").read_text() for name in NAMES}
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(block, id=f"{name} {number}")
    for name, page in PAGES.items()
    for number, block in enumerate(PYTHON.findall(page))
]
WITH_NUMBERS = [block for block in BLOCKS if re.search(r"# [\d.]+$", block.values[0], re.MULTILINE)]


def namespace():
    return {"Trainer": Trainer, "dataset": nets.vectors()}


def test_the_readme_is_short_and_names_every_callback():
    assert len(README.encode()) <= 6000
    for kind in nets.CALLBACKS:
        assert f"| `{kind.__name__}` |" in README


@pytest.mark.slow
def test_the_first_run_is_a_program_as_it_stands(tmp_path):
    (program,) = PYTHON.findall(README)
    (tmp_path / "first_run.py").write_text(program)
    done = run_python("first_run.py", cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"tensor\(([\d.e-]+)", done.stdout)[1]) < 0.5
    assert "nc2_etf_error " in done.stdout  # the table of GeometrySummary
    assert "lightning_nc" not in done.stderr  # no warning of ours


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)", README))))
def test_links_of_the_readme_lead_to_files(link):
    assert (ROOT / link).is_file()


def test_the_table_before_training_is_what_comes_out():
    (shown,) = re.findall(r"```text\n(layers .*?)```", PAGES["options"], re.DOTALL)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16).float(), torch.tensor(labels))
    found = str(check(DigitsClassifier(), DataLoader(data, 128)))
    times = r"[\d.e+-]+ (s|min|times)\b"  # and their ratio
    assert re.sub(times, "...", shown.rstrip("\n")) == re.sub(times, "...", found)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_runs(block):
    names = namespace()
    exec(block, names)
    if "trainer" in names:
        callbacks = [c for c in names["trainer"].callbacks if isinstance(c, MeasureCallback)]
        names = "|".join(kind.__name__ for kind in nets.CALLBACKS)
        assert len(callbacks) == len(re.findall(rf"\b({names})\(", block))


@pytest.mark.parametrize("block", WITH_NUMBERS)
def test_numbers_in_comments_are_what_comes_out(block):
    names = namespace()
    for statement in ast.parse(block).body:
        source = ast.get_source_segment(block, statement)
        shown = re.search(re.escape(source) + r"  # ([\d.]+)$", block, re.M)
        if shown and isinstance(statement, ast.Expr):
            digits = len(shown[1].partition(".")[2])
            assert round(float(eval(source, names)), digits) == float(shown[1])
        else:
            exec(source, names)
