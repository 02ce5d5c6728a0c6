"""The contract of every callback, but that training is the same to the last bit."""

import functools
import gc
import pickle
import tempfile
import warnings
import weakref

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_nc import Probe
from tests import nets
from tests.callbacks.runs import quantities

pytestmark = [
    pytest.mark.filterwarnings(*nets.only_our_warnings),
    pytest.mark.parametrize("callback_class", nets.CALLBACKS),
]


@functools.cache
def untouched():
    """The same training without a callback."""
    with tempfile.TemporaryDirectory() as folder:
        return nets.train_and_trace(folder)


def test_a_pass_that_fails_is_skipped_with_a_warning_and_leaves_no_trace(callback_class, tmp_path):
    probe = Probe(source=nets.Broken(), name="broken")
    callback = callback_class(probe=probe, epochs=[0, 1])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trace = nets.train_and_trace(tmp_path, [callback])
    ours = [w for w in told if w.category is RuntimeWarning]
    assert nets.difference(trace, untouched()) is None
    assert callback.failures == 2
    assert callback.history == []
    assert len(ours) == 2  # the cause, and how often
    assert "the disk is gone" in str(ours[0].message)
    assert "skipped the measurement on 'broken' after 0 epochs" in str(ours[0].message)
    told = "on 'broken': 2 of 2 measurements were skipped: process 0 raised OSError: the disk is"
    assert told in str(ours[1].message)


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


def test_a_compiled_network_is_measured_like_an_eager_one(callback_class, tmp_path):
    def compiled(module):
        module.net = torch.compile(module.net, backend="eager")
        return module

    torch._dynamo.reset()
    eager, callback = callback_class(figures=False), callback_class(figures=False)
    nets.train_and_trace(tmp_path, [eager])
    nets.train_and_trace(tmp_path, [callback], wrap=compiled)
    assert quantities(callback) == quantities(eager)


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
    assert state["version"] == 2
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


def test_a_callback_adds_nothing_to_the_module_and_holds_nothing_of_it(callback_class, tmp_path):
    callback = callback_class(figures=False, probe=Probe(samples_per_class=8))
    wide = torch.nn.Sequential(
        torch.nn.Linear(6, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 40), torch.nn.ReLU()
    )
    run = nets.fit(tmp_path, [callback], net=wide.append(torch.nn.Linear(40, 3)))
    plain = nets.fit(tmp_path, net=nets.mlp()).lightning_module
    module = run.lightning_module
    assert list(vars(module)) == list(vars(plain))
    assert {name.split(".")[0] for name in module.state_dict()} == {"net"}
    assert {name.split(".")[0] for name, _ in module.named_modules()} == {"", "net"}

    del callback.log, callback.log_dict  # methods of the module, with which Lightning provides all
    assert len(pickle.dumps(callback)) < 20_000  # class means of the first layer are 24 kB
    alive = [weakref.ref(thing) for thing in (module, wide, *module.parameters())]
    del run, module, wide
    gc.collect()
    assert [thing for thing in alive if thing() is not None] == []
