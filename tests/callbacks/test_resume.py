"""A run that stops anywhere and goes on from a checkpoint has the history of one that did not."""

import copy
import functools
import io
import itertools
import signal
import tempfile
from datetime import timedelta

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import OnExceptionCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_nc import NeuralCollapse, Probe
from tests import nets
from tests.callbacks.records import csv_rows
from tests.callbacks.scripts.start import run_script, warnings_of
from tests.callbacks.scripts.train import pair, train

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

SCHEDULES = {
    "every epoch": {},
    "every second epoch": {"every_n_epochs": 2},
    "chosen epochs": {"epochs": [1, 2]},
    "validation ends": {"when": "validation_end"},
}
VALIDATIONS = {
    "no validation": {"limit_val_batches": 0},
    "validation": {},
    "validation twice per epoch": {"val_check_interval": 0.5},
    "validation every second epoch": {"check_val_every_n_epoch": 2},
}
CHECKPOINTS = {
    "at epoch ends": {"save_on_train_epoch_end": True},
    "at validation ends": {"save_on_train_epoch_end": False},
    "within an epoch": {"every_n_train_steps": 3},
    "on the last batch of an epoch": {"every_n_train_steps": 4},
    "after every batch": {"train_time_interval": timedelta(0)},
    "when an exception is raised": None,
}
STOPS = {
    "a failure within an epoch": {"deed": "fail", "where": "batch"},
    "an interrupt of a measurement": {"deed": "interrupt", "where": "measurement"},
}
NEVER_WRITTEN = [  # before the run stops
    ("at validation ends", "a failure within an epoch", "no validation"),
    ("at validation ends", "an interrupt of a measurement", "no validation"),
    ("at validation ends", "an interrupt of a measurement", "validation every second epoch"),
]
CASES = [c for c in itertools.product(CHECKPOINTS, STOPS, VALIDATIONS) if c not in NEVER_WRITTEN]


def on_every_schedule():
    """Callbacks of both classes for each schedule, by its name."""
    return {
        name: pair(probe=Probe("train", name), **options) for name, options in SCHEDULES.items()
    }


def flat(by_schedule):
    return [callback for both in by_schedule.values() for callback in both]


def numbers(callback):
    """What must be the same in two runs: when, under which step, and what was measured."""
    probe = f"/{callback.probe.key}/"
    return [
        (
            m.epochs_completed,
            m.step,
            {k.replace(probe, "/"): str(v) for k, v in m.values.items() if "seconds" not in k},
        )
        for m in callback.history
    ]


def assert_same_run(run, by_schedule, expected_run, expected):
    for schedule, callbacks in by_schedule.items():
        for callback, other in zip(callbacks, expected[schedule], strict=True):
            when, expected_when = (
                [(m.epochs_completed, m.step) for m in c.history] for c in (callback, other)
            )
            assert when == expected_when, schedule
            assert numbers(callback) == numbers(other), schedule
    weights, expected_weights = (r.lightning_module.state_dict() for r in (run, expected_run))
    assert nets.same(weights, expected_weights)


@functools.cache
def uninterrupted(validation="no validation"):
    by_schedule = on_every_schedule()
    with tempfile.TemporaryDirectory() as folder:
        run = train(folder, flat(by_schedule), **VALIDATIONS[validation])
    return run, by_schedule


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint", "stop", "validation"), CASES)
def test_resuming_gives_the_history_of_an_uninterrupted_run(checkpoint, stop, validation, tmp_path):
    options = {"checkpoint": CHECKPOINTS[checkpoint], **VALIDATIONS[validation]}
    callbacks, name = flat(on_every_schedule()), "last.ckpt"
    if options["checkpoint"] is None:
        callbacks.append(OnExceptionCheckpoint(tmp_path))
        options["enable_checkpointing"] = True
        name = "on_exception.ckpt"
    with pytest.raises((OSError, SystemExit)):
        train(tmp_path, callbacks, STOPS[stop], **options)
    again = on_every_schedule()
    run = train(tmp_path, flat(again), ckpt_path=tmp_path / name, **options)
    assert_same_run(run, again, *uninterrupted(validation))


def test_a_measurement_that_gave_way_to_a_signal_is_made_when_the_run_is_resumed(tmp_path):
    options = {"checkpoint": CHECKPOINTS["at epoch ends"], "limit_val_batches": 0}
    with pytest.raises(SystemExit):
        train(tmp_path, flat(on_every_schedule()), {"deed": "terminate"}, **options)
    again = on_every_schedule()
    run = train(tmp_path, flat(again), ckpt_path=tmp_path / "last.ckpt", **options)
    assert_same_run(run, again, *uninterrupted())


@pytest.mark.parametrize("max_epochs", [2, 4])
def test_a_finished_run_can_be_resumed(max_epochs, tmp_path):
    first = on_every_schedule()
    run = train(tmp_path, flat(first), max_epochs=2)
    run.save_checkpoint(tmp_path / "finished.ckpt")
    again = on_every_schedule()
    path = tmp_path / "finished.ckpt"
    resumed = train(tmp_path, flat(again), ckpt_path=path, max_epochs=max_epochs)
    expected = (run, first) if max_epochs == 2 else uninterrupted("validation")
    assert_same_run(resumed, again, *expected)


def test_callbacks_can_be_added_when_a_run_is_resumed(tmp_path):
    train(tmp_path, max_epochs=2).save_checkpoint(tmp_path / "without.ckpt")
    callbacks = pair()
    train(tmp_path, callbacks, ckpt_path=tmp_path / "without.ckpt")
    _, expected = uninterrupted("validation")
    for callback, other in zip(callbacks, expected["every epoch"], strict=True):
        assert [m.epochs_completed for m in callback.history] == [2, 3, 4]
        assert [m.step for m in callback.history] == [m.step for m in other.history[2:]]


class Stream(IterableDataset):
    """Samples of which it is not known how many there are."""

    def __iter__(self):
        return iter(nets.vectors())


def test_callbacks_can_be_added_when_a_run_on_a_stream_is_resumed(tmp_path):
    path, loader = tmp_path / "one.ckpt", DataLoader(Stream(), 10)
    first = nets.trainer(tmp_path, max_epochs=1)
    first.fit(nets.Classifier(), loader, DataLoader(nets.vectors(), 10))
    first.save_checkpoint(path)
    own = Probe(nets.vectors(), "own")
    callback = NeuralCollapse(probe=own, when="validation_end", figures=False)
    run = nets.trainer(tmp_path, [callback], max_epochs=3)
    run.fit(nets.Classifier(), loader, DataLoader(nets.vectors(), 10), ckpt_path=path)
    assert [m.epochs_completed for m in callback.history] == [1, 2, 3]


def test_states_are_loaded_safely_and_each_callback_has_its_own(tmp_path):
    callbacks = flat(on_every_schedule())
    train(tmp_path, callbacks, max_epochs=1).save_checkpoint(tmp_path / "run.ckpt")
    states = torch.load(tmp_path / "run.ckpt", weights_only=True)["callbacks"]
    assert len({callback.state_key for callback in callbacks}) == len(callbacks)
    for callback in callbacks:
        state = states[callback.state_key]
        assert (state["version"], nets.history_of(state)) == (2, callback.history)


def test_the_state_of_a_long_history_is_small(tmp_path):
    callbacks = pair()
    data = nets.vectors((3,) * 10, d=20)
    hidden = [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    net = nn.Sequential(*hidden, nn.Linear(64, 10))
    nets.fit(tmp_path, callbacks, data, net, batch_size=30, max_epochs=99, limit_val_batches=0)
    for callback in callbacks:
        file = io.BytesIO()
        torch.save(callback.state_dict(), file)
        assert len(callback.history) == 100
        assert len(file.getvalue()) < 100 * 10_000


class Witness(Callback):
    """Knows what a network was like after the last batch."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.module, self.seen = pl_module, copy.deepcopy(self.look(pl_module))

    @staticmethod
    def look(module):
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]
        modes = [m.training for m in module.modules()]
        return [module.state_dict(), hooks, modes, torch.get_rng_state(), torch.is_grad_enabled()]


@pytest.mark.parametrize("deed", ["interrupt", "terminate", "fail"])
def test_a_measurement_that_is_stopped_leaves_the_network_as_it_was(deed, tmp_path):
    witness, callbacks = Witness(), pair(on_error="raise")
    with pytest.raises((SystemExit, OSError)):
        train(tmp_path, [*callbacks, witness], {"deed": deed}, limit_val_batches=0)
    assert nets.same(witness.look(witness.module), witness.seen)
    assert all([m.epochs_completed for m in c.history] == [0, 1] for c in callbacks)


def test_a_resumed_run_logs_only_what_is_new(tmp_path):
    options = {"checkpoint": CHECKPOINTS["at epoch ends"], "limit_val_batches": 0}
    with pytest.raises(OSError, match="the disk is gone"):
        train(tmp_path, pair(), STOPS["a failure within an epoch"], **options)
    callbacks, logger = pair(), CSVLogger(tmp_path)
    train(tmp_path, callbacks, ckpt_path=tmp_path / "last.ckpt", logger=logger, **options)
    rows = csv_rows(tmp_path)
    for callback in callbacks:
        logged = [row[callback.record.prefix + "epochs_completed"] for row in rows]
        assert [float(text) for text in logged if text] == [3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["measurement", "batch"])
def test_a_killed_run_can_be_resumed(where, tmp_path):
    checkpoint = {"checkpoint": {}, "limit_val_batches": 0}
    fate = {"deed": "kill", "where": where}
    done = run_script(tmp_path, {"killed": checkpoint | {"fate": fate}})
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = {"every epoch": pair()}
    run = train(tmp_path, again["every epoch"], ckpt_path=tmp_path / "last.ckpt", **checkpoint)
    assert_same_run(run, again, *uninterrupted())


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_can_be_resumed(tmp_path):
    two = {"strategy": "ddp", "devices": 2, "batch_size": 5, "limit_val_batches": 0}
    fate = {"deed": "kill", "rank": 1}
    done = run_script(tmp_path, {"killed": two | {"checkpoint": {}, "fate": fate}})
    assert done.returncode != 0
    again = {"ckpt_path": str(tmp_path / "last.ckpt"), "checkpoint": {}}
    done = run_script(tmp_path, {"again": two | again, "uninterrupted": two})
    assert done.returncode == 0, done.stderr
    assert warnings_of(done) == []
    for rank in (0, 1):
        resumed, expected = (
            torch.load(tmp_path / f"{fit}-{rank}.pt", weights_only=True)
            for fit in ("again", "uninterrupted")
        )
        assert nets.same(resumed["weights"], expected["weights"])
        for callback, other in zip(read(resumed), read(expected), strict=True):
            assert [m.epochs_completed for m in callback.history] == [0, 1, 2, 3, 4]
            assert numbers(callback) == numbers(other)


def read(result):
    """The callbacks that a script has written down."""
    callbacks = pair()
    for callback in callbacks:
        callback.load_state_dict(result["callbacks"][callback.family])
    return callbacks
