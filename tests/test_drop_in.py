"""The contract of every callback: training is what it would have been, to the last bit."""

import functools
import tempfile
import warnings

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_nc import Probe
from tests import nets

pytestmark = [
    pytest.mark.filterwarnings(*nets.only_our_warnings),
    pytest.mark.parametrize("callback_class", nets.CALLBACKS),
]

# what the loader and the Trainer are told, and what the callback is told
LOADERS = {
    "augmentations in the main process": {},
    "two workers": {"workers": 2},
    "persistent workers": {"workers": 2, "persistent": True},
    "a loader with a generator of its own": {"generator": True},
    "gradient accumulation": {"accumulate_grad_batches": 2},
    "validation in mid-epoch": {"val_check_interval": 0.5},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "lightning.pytorch": {"namespace": "lightning"},
}
PASSES = {
    "train epochs": {},
    "validation ends": {"when": "validation_end"},
    "validation data": {"probe": "val", "when": "validation_end"},
    "batch statistics": {"probe": Probe(batch_norm="batch", samples_per_class=6)},
    "two sweeps": {"probe": Probe(cache_mb=0)},
    "workers of the probe": {"probe": Probe(num_workers=1)},
}


@functools.cache
def untouched(loader):
    """The same training without a callback."""
    with tempfile.TemporaryDirectory() as folder:
        return nets.train_and_trace(folder, **LOADERS[loader])


def assert_same_training(trace, loader):
    for field, kept, expected in zip(trace._fields, trace, untouched(loader), strict=True):
        assert nets.same(kept, expected), f"{field} changed"


@pytest.mark.parametrize("loader", LOADERS)
def test_training_is_bit_identical_with_every_loader_and_trainer(callback_class, loader, tmp_path):
    callback = callback_class(figures=False)
    trace = nets.train_and_trace(tmp_path, [callback], **LOADERS[loader])
    assert_same_training(trace, loader)
    assert [m.epochs_completed for m in callback.history] == [0, 1, 2]


@pytest.mark.parametrize("way", PASSES)
def test_training_is_bit_identical_with_every_kind_of_pass(callback_class, way, tmp_path):
    callback = callback_class(figures=False, **PASSES[way])
    trace = nets.train_and_trace(tmp_path, [callback], **LOADERS["validation in mid-epoch"])
    assert_same_training(trace, "validation in mid-epoch")
    assert callback.history[-1].epochs_completed == 2
    if callback.schedule.when == "validation_end":
        assert [m.epochs_completed for m in callback.history] == [0, 0.5, 1, 1.5, 2]


def test_training_is_bit_identical_with_figures_and_loggers(callback_class, tmp_path):
    loggers = [CSVLogger(tmp_path), TensorBoardLogger(tmp_path)]
    callback = callback_class()
    trace = nets.train_and_trace(tmp_path, [callback], logger=loggers)
    assert_same_training(trace, "augmentations in the main process")
    assert list(tmp_path.rglob("*.png"))


def test_all_callbacks_together_leave_training_as_it_was(callback_class, tmp_path):
    others = [kind() for kind in nets.CALLBACKS if kind is not callback_class]
    trace = nets.train_and_trace(tmp_path, [callback_class(), *others])
    assert_same_training(trace, "augmentations in the main process")


def test_the_comparison_notices_a_callback_that_draws_a_random_number(callback_class, tmp_path):
    class Drawing(callback_class):
        def on_train_epoch_end(self, trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)
            torch.rand(())

    trace = nets.train_and_trace(tmp_path, [Drawing(figures=False)])
    with pytest.raises(AssertionError, match="changed"):
        assert_same_training(trace, "augmentations in the main process")


def test_a_pass_that_fails_is_skipped_with_a_warning_and_leaves_no_trace(callback_class, tmp_path):
    probe = Probe(source=nets.Broken(), name="broken")
    callback = callback_class(probe=probe, epochs=[0, 1])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trace = nets.train_and_trace(tmp_path, [callback])
    ours = [w for w in told if w.category is RuntimeWarning]
    assert_same_training(trace, "augmentations in the main process")
    assert callback.failures == 2
    assert callback.history == []
    assert len(ours) == 2  # one per failure
    assert "the disk is gone" in str(ours[0].message)
    assert "skipped the measurement on 'broken' after 0 epochs" in str(ours[0].message)


def test_a_last_epoch_that_fails_is_counted_once(callback_class, tmp_path):
    probe = Probe(source=nets.Broken(), name="broken")
    callback = callback_class(probe=probe)
    with pytest.warns(RuntimeWarning, match="skipped"):
        nets.fit(tmp_path, [callback])
    assert callback.failures == 3  # before training and after each of two epochs


def test_a_pass_that_fails_stops_the_run_if_asked_and_leaves_no_trace(callback_class, tmp_path):
    probe = Probe(source=nets.Broken(), name="broken")
    callback = callback_class(probe=probe, epochs=[1], on_error="raise")
    seen = {}

    class Watcher(nets.Classifier):
        def on_train_epoch_end(self):
            seen["rng"] = torch.get_rng_state()

        def on_exception(self, exception):
            seen["error"] = exception

    module = Watcher()
    run = nets.trainer(tmp_path, [callback])
    with pytest.raises(OSError, match="the disk is gone"):
        run.fit(module, torch.utils.data.DataLoader(nets.Blobs(), 8))
    assert callback.failures == 1
    assert not any(m._forward_hooks for m in module.modules())
    assert module.training
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("place", ["around the module", "inside the module"])
def test_a_compiled_network_is_measured_like_an_eager_one(callback_class, place, tmp_path):
    def compiled(module):
        if place == "around the module":
            return torch.compile(module, backend="eager")
        module.net = torch.compile(module.net, backend="eager")
        return module

    eager, callback = callback_class(figures=False), callback_class(figures=False)
    nets.train_and_trace(tmp_path, [eager])
    plain = nets.train_and_trace(tmp_path, wrap=compiled)
    trace = nets.train_and_trace(tmp_path, [callback], wrap=compiled)
    assert all(map(nets.same, trace, plain))
    assert quantities(callback) == quantities(eager)


def quantities(callback):
    return [
        {key: str(v) for key, v in m.values.items() if not key.endswith("/seconds")}
        for m in callback.history
    ]


def test_values_do_not_depend_on_the_namespace(callback_class, tmp_path):
    one, other = callback_class(figures=False), callback_class(figures=False)
    nets.train_and_trace(tmp_path, [one], namespace="lightning")
    nets.train_and_trace(tmp_path, [other], namespace="pytorch_lightning")
    assert quantities(one) == quantities(other)


@pytest.mark.parametrize("when", ["train_epoch_end", "validation_end"])
@pytest.mark.parametrize("saved", ["train epoch end", "validation end"])
def test_resuming_leaves_a_history_without_gaps_or_duplicates(
    callback_class, when, saved, tmp_path
):
    checkpoint = ModelCheckpoint(
        tmp_path, save_last=True, save_on_train_epoch_end=saved == "train epoch end"
    )
    first = callback_class(when=when, figures=False)
    nets.fit(tmp_path, [first, checkpoint], enable_checkpointing=True)
    path = tmp_path / "last.ckpt"
    state = torch.load(path, weights_only=True)["callbacks"][first.state_key]
    assert state["version"] == 1
    again = callback_class(when=when, figures=False)
    nets.fit(tmp_path, [again], max_epochs=4, fit_options={"ckpt_path": path})
    assert [m.epochs_completed for m in again.history] == [0, 1, 2, 3, 4]
    assert quantities(again)[:2] == quantities(first)[:2]
    steps = [m.step for m in again.history]
    assert steps == sorted(steps)


def test_a_callback_starts_afresh_in_a_second_trainer(callback_class, tmp_path):
    probe = Probe(source=nets.Broken(), name="broken")
    callback = callback_class(probe=probe, epochs=[0])
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="skipped"):
            nets.fit(tmp_path, [callback])
    assert callback.failures == 1
    callback = callback_class(figures=False)
    nets.fit(tmp_path, [callback], net=nets.mlp(6))
    once = quantities(callback)
    nets.fit(tmp_path, [callback], net=nets.mlp(6))
    assert len(callback.history) == 3
    assert [list(q) for q in quantities(callback)] == [list(q) for q in once]


def test_testing_the_best_checkpoint_keeps_the_history_of_training(callback_class, tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="loss", mode="max", save_top_k=1, filename="best")
    callback = callback_class(figures=False)
    run = nets.fit(tmp_path, [callback, best], enable_checkpointing=True)
    loader = torch.utils.data.DataLoader(nets.vectors(), 10)
    run.test(run.lightning_module, loader, ckpt_path=best.best_model_path, verbose=False)
    assert [m.epochs_completed for m in callback.history] == [0, 1, 2]
