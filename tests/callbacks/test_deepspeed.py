"""Under DeepSpeed a network is measured as long as its parameters are whole.

The runs need ``pip install deepspeed``, which works without a GPU.
"""

import importlib.util

import pytest
from pytorch_lightning.strategies import SingleDeviceStrategy

from tests import nets
from tests.callbacks import sharded
from tests.processes import run_processes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(*nets.only_our_warnings)]


@pytest.fixture(scope="module")
def trained():
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("needs deepspeed, which the project does not install")
    from tests.callbacks import deepspeed_run

    return run_processes(deepspeed_run.train_stages, 2)


@pytest.mark.parametrize("stage", ["stage 1", "stage 2"])
def test_stages_with_whole_parameters_are_measured_like_ddp(stage, trained):
    sharded.assert_like_ddp(trained, stage)


def test_stage_3_is_refused_at_setup(trained):
    for results in trained:
        assert "cannot measure under stage 3 of DeepSpeed" in results["stage 3"]


class DeepSpeedStrategy(SingleDeviceStrategy):
    """One that is named like DeepSpeed's, and tells its stage as that does."""

    zero_stage_3 = False


class StageThree(DeepSpeedStrategy):
    zero_stage_3 = True


class XLAStrategy(SingleDeviceStrategy):
    """One that is named like XLA's."""


@pytest.mark.parametrize("kind", nets.CALLBACKS)
def test_strategies_that_cannot_be_measured_are_refused_at_setup(kind, tmp_path):
    callback = kind()
    nets.fit(tmp_path, [callback], strategy=DeepSpeedStrategy("cpu"))
    assert callback.failures == 0
    for strategy, named in ((StageThree, "stage 3 of DeepSpeed"), (XLAStrategy, "XLAStrategy")):
        with pytest.raises(ValueError, match=f"{kind.__name__} cannot measure under {named}"):
            nets.fit(tmp_path, [kind()], strategy=strategy("cpu"))
