"""Names of Lightning and torch that are not public are taken away: the run still finishes."""

import contextlib
import warnings

import pytest
import torch.distributed as dist
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

from lightning_nc import NeuralCollapse
from lightning_nc.callbacks import lightning_internals
from lightning_nc.passes.meeting import meeting_place
from tests import nets

WHERE = lightning_internals.__file__
pytestmark = pytest.mark.filterwarnings("ignore")


@contextlib.contextmanager
def without(monkeypatch, owner, *names):
    """Hide attributes of instances of a class from the one file that uses them."""
    import sys

    seen = []

    def hidden(self, name):
        if name in names and sys._getframe(1).f_code.co_filename == WHERE:
            seen.append(name)
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(owner, "__getattribute__", hidden, raising=False)
    yield
    assert seen, f"nobody asked for {names}"


def fit(folder, **options):
    callback = NeuralCollapse(figures=False, **options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run = nets.fit(folder, [callback])
    ours = [str(w.message) for w in told if w.category is RuntimeWarning]
    return run, callback, ours


@pytest.fixture
def untouched(tmp_path):
    return nets.fit(tmp_path / "alone").lightning_module.state_dict()


def same_weights(run, untouched):
    return nets.same(run.lightning_module.state_dict(), untouched)


def test_without_what_monitors_see_values_are_logged_all_the_same(tmp_path, monkeypatch, untouched):
    with without(monkeypatch, _LoggerConnector, "_callback_metrics"):
        run, callback, told = fit(tmp_path)
    assert run.state.finished
    assert same_weights(run, untouched)
    assert len(callback.history) == 3
    assert told == []


def test_without_the_counters_of_loops_what_cannot_be_told_is_said_once(
    tmp_path, monkeypatch, untouched
):
    with without(monkeypatch, _FitLoop, "epoch_progress"):
        run, callback, told = fit(tmp_path)
    assert run.state.finished
    assert same_weights(run, untouched)
    # the beginning alone needs them; the ends of epochs are told by public names
    assert [m.epochs_completed for m in callback.history] == [1, 2]
    assert len(told) == 1
    assert "epoch_progress" in told[0]


def test_without_the_count_of_batches_the_steps_are_those_of_optimizers(
    tmp_path, monkeypatch, untouched
):
    with without(monkeypatch, _TrainingEpochLoop, "_batches_that_stepped"):
        run, callback, told = fit(tmp_path)
    assert run.state.finished
    assert same_weights(run, untouched)
    assert [m.step for m in callback.history] == [0, 2, 5]
    assert told == []


@pytest.mark.parametrize("names", [("_combined_loader",), ("_combined_loader", "_data_source")])
def test_without_the_loaders_of_loops_the_way_out_is_told(names, tmp_path, monkeypatch, untouched):
    with without(monkeypatch, _FitLoop, *names):
        run, callback, told = fit(tmp_path)
    assert run.state.finished
    assert same_weights(run, untouched)
    assert callback.failures == 3
    assert 'The Trainer has no "train" loader' in told[0]


def test_without_the_hook_around_transfers_the_public_one_is_called(
    tmp_path, monkeypatch, untouched
):
    module = nets.Classifier

    with without(monkeypatch, module, "_on_before_batch_transfer"):
        run, callback, told = fit(tmp_path)
    assert run.state.finished
    assert same_weights(run, untouched)
    assert len(callback.history) == 3
    assert told == []


def test_without_what_a_monitor_was_told_there_is_no_advice_and_no_error(tmp_path, monkeypatch):
    with without(monkeypatch, EarlyStopping, "_check_on_train_epoch_end"):
        callback = NeuralCollapse(figures=False)
        stopping = EarlyStopping("nc/train/nc1", patience=9)
        run = nets.fit(tmp_path, [callback, stopping])
    assert run.state.finished
    assert len(callback.history) == 3


def test_without_the_store_of_the_group_processes_go_on_as_if_all_had_come(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.delattr(dist.distributed_c10d, "_get_default_store")
    assert meeting_place() is None


def test_every_name_that_is_not_public_is_in_one_file():
    """But for those of torch's own modules and of FSDP, which have a file each."""
    import ast
    from pathlib import Path

    import lightning_nc

    package = Path(lightning_nc.__file__).parent
    of_lightning = ("trainer", "pl_module", "loop", "watcher", "results", "metric")
    found = set()
    for path in (package / "callbacks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                root = node
                while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
                    root = root.func if isinstance(root, ast.Call) else root.value
                if isinstance(root, ast.Name) and root.id in of_lightning:
                    found.add(path.name)
    assert found == {"lightning_internals.py"}
