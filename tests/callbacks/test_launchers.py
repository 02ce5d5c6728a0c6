"""Callbacks in scripts as users start them, by Lightning's launchers and torchrun."""

import math
import os

import pytest
import torch

from tests import nets
from tests.callbacks.records import csv_rows
from tests.callbacks.scripts.start import run_script, warnings_of
from tests.callbacks.scripts.train import pair, train

# to start processes that import torch and Lightning takes most of the time
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(*nets.only_our_warnings)]

TWO = {"devices": 2, "batch_size": 5, "max_epochs": 3, "limit_val_batches": 0}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
LAUNCHERS = {
    "ddp": ("ddp", ()),
    "ddp_spawn": ("ddp_spawn", ()),
    "ddp_fork": ("ddp_fork", ()),
    "torchrun": ("ddp", TORCHRUN),
}
IN_CHILDREN = ("ddp_spawn", "ddp_fork")  # where callbacks of the main process stay as they were
BROKEN = {"deed": "fail", "rank": 1}  # the measurement after epoch two, on the second process


def result(folder, fit, rank=0):
    return torch.load(folder / f"{fit}-{rank}.pt", weights_only=True)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Folder of the results of each launcher; ddp trains without callbacks, too."""
    folders = {}

    def start(launcher):
        if launcher not in folders:
            strategy, command = LAUNCHERS[launcher]
            options, folder = TWO | {"strategy": strategy}, tmp_path_factory.mktemp(launcher)
            fits = {"measured": options | {"csv": True, "before": launcher in IN_CHILDREN}}
            if launcher == "ddp":
                fits["alone"] = options | {"measured": None}
                fits["broken"] = options | {"fate": BROKEN}
            done = run_script(folder, fits, command)
            assert done.returncode == 0, done.stderr
            told = warnings_of(done)
            assert len(told) == (launcher == "ddp")
            assert all("process 1 raised OSError: the disk is gone" in line for line in told)
            folders[launcher] = folder
        return folders[launcher]

    return start


@pytest.fixture(scope="module")
def before_training(tmp_path_factory):
    """Values of one process before training."""
    callbacks = pair(epochs=[0])
    train(tmp_path_factory.mktemp("one"), callbacks, max_epochs=1)
    return {key: v for c in callbacks for key, v in c.history[0].values.items()}


def same_number(a, b):
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-15) or (math.isnan(a) and math.isnan(b))


@pytest.fixture(params=LAUNCHERS)
def launcher(request):
    if request.param == "ddp_fork" and not hasattr(os, "fork"):
        pytest.skip("this platform does not fork")
    return request.param


def test_weights_are_bit_identical_with_every_launcher(launcher, folder_of):
    measured, alone = result(folder_of(launcher), "measured"), result(folder_of("ddp"), "alone")
    assert nets.same(measured["weights"], alone["weights"])


def test_loggers_have_every_measurement_once_with_every_launcher(
    launcher, folder_of, before_training
):
    rows = csv_rows(folder_of(launcher))
    for key, value in before_training.items():
        logged = [float(row[key]) for row in rows if row[key]]
        assert len(logged) == 4, key
        if not key.endswith("seconds"):
            assert same_number(logged[0], value), key
        if key.endswith("/epochs_completed"):
            assert logged == [0, 1, 2, 3]


def test_monitors_have_the_values_of_the_last_measurement(launcher, folder_of, before_training):
    metrics = result(folder_of(launcher), "measured")["metrics"]
    last = {}
    for row in csv_rows(folder_of(launcher)):
        last |= {key: float(value) for key, value in row.items() if value}
    for key in before_training:
        if math.isfinite(last[key]):  # else it is not for monitors
            assert same_number(float(metrics[key]), last[key]), key


def test_the_history_is_complete_where_callbacks_come_back(launcher, folder_of):
    for rank in (0,) if launcher in IN_CHILDREN else (0, 1):
        kept = result(folder_of(launcher), "measured", rank)["callbacks"]
        epochs = {
            name: [m.epochs_completed for m in nets.history_of(state)]
            for name, state in kept.items()
        }
        expected = [0, 1] if launcher in IN_CHILDREN else [0, 1, 2, 3]  # of the fit before
        assert epochs == {nets.family_of(kind): expected for kind in nets.CALLBACKS}


def test_a_failure_on_the_second_process_is_skipped_on_both(folder_of):
    folder = folder_of("ddp")
    assert nets.same(result(folder, "broken")["weights"], result(folder, "alone")["weights"])
    for rank in (0, 1):
        for key, state in result(folder, "broken", rank)["callbacks"].items():
            # the pass that compares gradients reads after the failure, and succeeds
            spared = key == "elasticity"
            epochs = [m.epochs_completed for m in nets.history_of(state)]
            assert epochs == ([0, 1, 2, 3] if spared else [0, 1, 3])
            assert state["failures"] == (not spared)


def test_a_failure_on_the_second_process_ends_all_if_asked(tmp_path):
    options = TWO | {"strategy": "ddp", "fate": BROKEN, "measured": {"on_error": "raise"}}
    done = run_script(tmp_path, {"broken": options})
    assert done.returncode != 0
    assert "OSError: the disk is gone" in done.stderr
    assert "after 2 epochs" not in done.stderr  # nothing was skipped
    assert not list(tmp_path.glob("broken-*.pt"))
