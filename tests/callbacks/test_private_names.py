"""Names of Lightning and torch that are not public are taken away: the run still finishes."""

import ast
import contextlib
import sys
import warnings
from pathlib import Path

import pytest
import torch.distributed as dist
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.loops.progress import (
    _BatchProgress,
    _ProcessedTracker,
    _Progress,
    _ReadyCompletedTracker,
)
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.trainer.connectors.data_connector import _DataLoaderSource
from pytorch_lightning.trainer.connectors.logger_connector import result
from pytorch_lightning.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader

import lightning_nc
from lightning_nc import NeuralCollapse, Probe
from lightning_nc.callbacks import lightning_internals
from lightning_nc.callbacks.lightning_internals import compute_metric, pending_metrics
from lightning_nc.loggers import kinds
from lightning_nc.passes.meeting import meeting_place
from tests import nets

PACKAGE = Path(lightning_nc.__file__).parent
WHERE = lightning_internals.__file__
pytestmark = pytest.mark.filterwarnings("ignore")

# every name that is not public or not documented, by the class of Lightning that has it
IN_A_RUN = {
    Trainer: ["_logger_connector", "distributed_sampler_kwargs", "validate_loop", "test_loop"],
    _LoggerConnector: ["_callback_metrics"],
    _FitLoop: ["epoch_progress", "epoch_loop", "_combined_loader"],
    _TrainingEpochLoop: ["batch_progress", "val_loop", "_batches_that_stepped", "_results"],
    _Progress: ["current", "total"],
    _BatchProgress: ["is_last_batch"],
    _ReadyCompletedTracker: ["ready", "completed"],
    _ProcessedTracker: ["processed"],
    CombinedLoader: ["iterables"],
    nets.Classifier: ["_on_before_batch_transfer"],
    EarlyStopping: ["_check_on_train_epoch_end"],
    ModelCheckpoint: ["_save_on_train_epoch_end"],
}
OF_RESULTS = {
    result._ResultCollection: ["valid_items", "_get_cache"],
    result._ResultMetric: ["meta", "is_tensor", "_computed"],
    result._Metadata: ["on_epoch", "sync"],
    result._Sync: ["should", "rank_zero_only"],
}
BEFORE_A_RUN = {_DataLoaderSource: ["is_defined", "dataloader"], _FitLoop: ["_data_source"]}
OF_TORCHMETRICS = {"value", "sync_on_compute"}  # of metrics that are logged
PUBLIC = {
    *("fit_loop", "global_step", "on_before_batch_transfer", "state", "fn"),
    *("global_rank", "world_size", "get", "Tensor"),
}


def each_of(table):
    pairs = [(owner, name) for owner, names in table.items() for name in names]
    return pytest.mark.parametrize(("owner", "name"), pairs, ids=[name for _, name in pairs])


@contextlib.contextmanager
def without(monkeypatch, owner, *names, where=WHERE):
    """Hide attributes of instances of a class from the one file that uses them."""
    seen = []

    def hidden(self, name):
        if name in names and sys._getframe(1).f_code.co_filename == where:
            seen.append(name)
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(owner, "__getattribute__", hidden, raising=False)
    yield
    assert seen, f"nobody asked for {names}"


@pytest.fixture
def fit(tmp_path):
    """Trains as without a callback; returns the callback, and what was warned of."""

    def measured():
        callback = NeuralCollapse(figures=False)
        with nets.our_warnings() as told:
            run = nets.fit(tmp_path, [callback])
        assert run.state.finished
        assert nets.same(run.lightning_module.state_dict(), untouched)
        return callback, told

    untouched = nets.fit(tmp_path / "alone").lightning_module.state_dict()
    return measured


def test_without_what_monitors_see_values_are_logged_all_the_same(monkeypatch, fit):
    with without(monkeypatch, _LoggerConnector, "_callback_metrics"):
        callback, told = fit()
    assert len(callback.history) == 3
    assert told == []


def test_without_the_counters_of_loops_what_cannot_be_told_is_said_once(monkeypatch, fit):
    with without(monkeypatch, _FitLoop, "epoch_progress"):
        callback, told = fit()
    # the beginning alone needs them; the ends of epochs are told by public names
    assert [m.epochs_completed for m in callback.history] == [1, 2]
    assert len(told) == 1
    assert "epoch_progress" in told[0]


def test_without_the_count_of_batches_the_steps_are_those_of_optimizers(monkeypatch, fit):
    with without(monkeypatch, _TrainingEpochLoop, "_batches_that_stepped"):
        callback, told = fit()
    assert [m.step for m in callback.history] == [0, 2, 5]
    assert told == []


@pytest.mark.parametrize("names", [("_combined_loader",), ("_combined_loader", "_data_source")])
def test_without_the_loaders_of_loops_the_way_out_is_told(names, monkeypatch, fit):
    with without(monkeypatch, _FitLoop, *names):
        callback, told = fit()
    assert callback.failures == 3
    assert 'The Trainer has no "train" loader' in told[0]


def test_without_the_hook_around_transfers_the_public_one_is_called(monkeypatch, fit):
    with without(monkeypatch, nets.Classifier, "_on_before_batch_transfer"):
        callback, told = fit()
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


def run_of_everything(folder, monitored="val_loss"):
    """Train beside monitors, validate and test, with probes of all loaders; what is left."""
    probes = [Probe("train"), Probe("val"), Probe("test"), Probe("val", "late")]
    ours = [NeuralCollapse(probe=probe, figures=False) for probe in probes[:3]]
    ours.append(NeuralCollapse(probe=probes[3], when="validation_end", figures=False))
    monitors = [
        EarlyStopping("nc/train/nc1", patience=9, strict=False),
        ModelCheckpoint(folder, monitor=monitored),
    ]
    with nets.our_warnings() as told:
        run = nets.fit(folder, [*ours, *monitors], enable_checkpointing=True)
        weights = run.lightning_module.state_dict()
        loader = DataLoader(nets.vectors(), 10)
        run.validate(run.lightning_module, loader, verbose=False)
        run.test(run.lightning_module, loader, verbose=False)
    assert run.state.finished
    return weights, ours, told


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "showwarning", lambda *_: None)
        weights, ours, _ = run_of_everything(tmp_path_factory.mktemp("everything"))
    assert [len(callback.history) for callback in ours] == [3, 4, 1, 4]
    return weights


@each_of(IN_A_RUN)
def test_a_run_without_a_name_finishes_and_says_so_once(
    owner, name, tmp_path, monkeypatch, everything
):
    with without(monkeypatch, owner, name):
        # Lightning itself stops a run in which a checkpoint finds no value
        monitored = {"monitored": "nc/train/nc1"} if owner is ModelCheckpoint else {}
        weights, ours, told = run_of_everything(tmp_path, **monitored)
    assert nets.same(weights, everything)
    # each callback says it once in `fit` and in `validate`, and at the end of `fit` how often
    assert all(told.count(text) <= len(ours) for text in told)
    assert len(told) <= 3 * len(ours), told


@each_of(BEFORE_A_RUN)
def test_without_the_source_of_a_loader_no_loader_is_found(owner, name, tmp_path, monkeypatch):
    run = nets.trainer(tmp_path)
    run.strategy.connect(module := nets.Classifier())
    run._data_connector.attach_data(module, DataLoader(nets.vectors(), 10))
    assert lightning_internals.loaders_of(run, "train") is not None
    with without(monkeypatch, owner, name):
        assert lightning_internals.loaders_of(run, "train") is None


@each_of(OF_RESULTS)
def test_without_the_names_of_results_no_metric_is_pending(owner, name, monkeypatch):
    results = result._ResultCollection(training=True)
    options = {"on_step": False, "on_epoch": True, "sync_dist": True}
    results.log("training_step", "loss", nets.torch.tensor(1.0), batch_size=1, **options)
    assert pending_metrics(results) == ["training_step.loss"]
    with without(monkeypatch, owner, name):
        assert name == "_get_cache" or pending_metrics(results) == []
        compute_metric(results, "training_step.loss")


def test_without_the_prefix_of_a_logger_its_keys_have_none(tmp_path, monkeypatch):
    logger = CSVLogger(tmp_path, prefix="mine")
    assert kinds.key_of(logger, "nc") == "mine-nc"
    with without(monkeypatch, CSVLogger, "_prefix", where=kinds.__file__):
        assert kinds.key_of(logger, "nc") == "nc"


def asked_for(source):
    """All attributes that a source asks for, by name or by a string, and of what."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield node.value, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            of, name, *_ = node.args
            if isinstance(name, ast.Constant):
                yield of, name.value


def test_every_name_in_that_file_is_taken_away_somewhere():
    tables = (IN_A_RUN, BEFORE_A_RUN, OF_RESULTS)
    taken = {name for table in tables for names in table.values() for name in names}
    fields = set(lightning_internals.Progress._fields)
    found = {name for _, name in asked_for(Path(WHERE).read_text())}
    assert found - taken - fields - OF_TORCHMETRICS == PUBLIC


def test_every_name_that_is_not_public_is_in_one_file():
    """But for those of torch's own modules and of FSDP, which have a file each."""
    of_lightning = ("trainer", "pl_module", "loop", "watcher", "results", "metric")
    found = set()
    for path in (PACKAGE / "callbacks").rglob("*.py"):
        for root, name in asked_for(path.read_text()):
            while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
                root = root.func if isinstance(root, ast.Call) else root.value
            if name.startswith("_") and isinstance(root, ast.Name) and root.id in of_lightning:
                found.add(path.name)
    assert found == {"lightning_internals.py"}
