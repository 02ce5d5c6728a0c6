"""What the README shows can be run as it stands."""

import ast
import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import MeasureCallback, check
from lightning_nc.__main__ import DigitsClassifier
from tests import nets

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
WITH_NUMBERS = [block for block in BLOCKS if re.search(r"# [\d.]+$", block, re.MULTILINE)]


def namespace():
    return {"Trainer": Trainer, "dataset": nets.vectors()}


def test_the_table_before_training_is_what_comes_out():
    (shown,) = re.findall(r"```text\n(layers .*?)```", README, re.DOTALL)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16).float(), torch.tensor(labels))
    found = str(check(DigitsClassifier(), DataLoader(data, 128)))
    times = r"[\d.e+-]+ (s|min|of the)\b"  # and their ratio
    assert re.sub(times, "...", shown.rstrip("\n")) == re.sub(times, "...", found)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
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
