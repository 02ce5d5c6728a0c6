"""What the README shows can be run as it stands."""

import ast
import re
from pathlib import Path

import pytest
from pytorch_lightning import Trainer

from lightning_nc import MeasureCallback
from tests import nets

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
WITH_NUMBERS = [block for block in BLOCKS if re.search(r"# [\d.]+$", block, re.MULTILINE)]


def namespace():
    return {"Trainer": Trainer, "dataset": nets.vectors()}


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
