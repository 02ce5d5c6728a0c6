"""What importing the package does to a program: nothing, whatever is imported first."""

import json

import lightning.pytorch
import pytest
import pytorch_lightning

from lightning_nc import MeasureCallback, NeuralCollapse
from lightning_nc.callbacks.lightning_base import follow_imports
from tests.programs import run_python

BOTH = ["lightning.pytorch", "pytorch_lightning"]
IMPORTS = {
    "ours last": "import {namespace}",
    "ours first": "from lightning_nc import *; import {namespace}",
}
COMPARED = """
before = program_state()
made = load_everything()
after = program_state()
result = {{
    "changed": changes(before, after),
    "other is loaded": {other!r} in sys.modules,
    "callbacks": [isinstance(each, {namespace}.Callback) for each in made],
}}
"""
# what a program does with the level of Lightning's messages, and messages of Lightning
SILENCED = """
import logging
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_only
rank_zero_only.rank = 0
rank_zero_info("told at first")
logging.getLogger({namespace!r}).setLevel(logging.ERROR)
load_everything()
rank_zero_info("silenced")
"""
ALONE = """
import torch, numpy, matplotlib, lightning_utilities.core.rank_zero
before = program_state()
import lightning_nc
import lightning_nc.functional
result = [changes(before, program_state())]

import logging, random, signal, os, torch, warnings
logging.getLogger("lightning.pytorch").setLevel(logging.DEBUG)
logging.getLogger().addFilter(logging.Filter("x"))
warnings.simplefilter("error")
random.random()
torch.set_default_dtype(torch.float64)
signal.signal(signal.SIGTERM, lambda *_: None)
os.environ["SOMETHING"] = "else"
result.append(changes(before, program_state()))
"""


def result_of(*parts):
    """The result of a fresh program, and what it wrote to its error stream."""
    script = "\n".join(
        [
            "import json, sys",
            "from tests.program_state import changes, load_everything, program_state",
            *parts,
            "print(json.dumps(result))",
        ]
    )
    done = run_python("-W", "ignore", "-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.parametrize("order", IMPORTS)
@pytest.mark.parametrize("namespace", BOTH)
def test_importing_changes_nothing_and_callbacks_are_those_of_the_namespace_in_use(
    order, namespace
):
    other = next(each for each in BOTH if each != namespace)
    parts = [IMPORTS[order], COMPARED, SILENCED]
    result, told = result_of(*(part.format(namespace=namespace, other=other) for part in parts))
    assert result["changed"] == {}
    assert result["callbacks"] == [True] * 5
    # before the program has imported Lightning, a class still has to be a callback of one
    assert result["other is loaded"] == (order == "ours first" and namespace == BOTH[0])
    assert "told at first" in told
    assert "silenced" not in told


def test_the_package_by_itself_changes_nothing_and_the_comparison_notices_what_does():
    (by_import, by_hand), _ = result_of(ALONE)
    assert by_import == {}
    assert by_hand.keys() == {
        *("logger lightning.pytorch", "logger root", "warning filters", "generators"),
        *("default dtype", "signal handlers", "environment"),
    }


def test_a_class_of_the_users_that_lists_bases_the_other_way_stops_nothing(monkeypatch):
    class Alone:
        """The `Callback` of a namespace that is imported later."""

    class Own(Alone, MeasureCallback):
        pass

    monkeypatch.setattr(lightning.pytorch, "Callback", Alone)
    follow_imports()
    assert isinstance(NeuralCollapse(), pytorch_lightning.Callback)
