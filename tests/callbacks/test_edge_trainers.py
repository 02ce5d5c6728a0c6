"""Trainers with every unusual setting: training is the same, and what is measured is known."""

import functools
import tempfile
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import BatchSizeFinder, Callback, EarlyStopping, LearningRateFinder
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

from lightning_nc import Probe, measure
from tests import nets
from tests.callbacks import records
from tests.callbacks.runs import assert_untouched, epochs, mixed, quantities, train

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)
every_callback = pytest.mark.parametrize("callback_class", nets.CALLBACKS)

BAREBONES = {"barebones": True, "num_sanity_val_steps": 0, "log_every_n_steps": 0}
VALIDATION = {"when": "validation_end"}

# what the Trainer is told, what the callback is told, and the epochs at which it has measured
SETTINGS = {
    "fast_dev_run": ({"fast_dev_run": True}, {}, [0, 1]),
    "fast_dev_run of two batches": ({"fast_dev_run": 2}, {}, [0, 1]),
    "fast_dev_run and validation": ({"fast_dev_run": 2}, VALIDATION, [0, 1]),
    "two batches per epoch": ({"limit_train_batches": 2}, {}, [0, 1, 2]),
    "half of the batches": ({"limit_train_batches": 0.5}, {}, [0, 1, 2]),
    "barebones": (BAREBONES, {}, [0, 1, 2]),
    "no sanity check": ({"num_sanity_val_steps": 0}, {}, [0, 1, 2]),
    "a full sanity check": ({"num_sanity_val_steps": -1}, {}, [0, 1, 2]),
    "a full sanity check of val": ({"num_sanity_val_steps": -1}, {"probe": "val"}, [0, 1, 2]),
    "no validation": ({"limit_val_batches": 0}, {}, [0, 1, 2]),
    "no validation to wait for": ({"limit_val_batches": 0}, VALIDATION, [0, 2]),
    "validation every other epoch": (
        {"check_val_every_n_epoch": 2, "max_epochs": 5, "num_sanity_val_steps": 0},
        VALIDATION | {"probe": "val"},
        [0, 2, 4, 5],
    ),
    "steps that end in mid-epoch": ({"max_steps": 8, "max_epochs": -1}, {}, [0, 1, 2]),
    "epochs without a limit": (
        {"max_steps": 8, "max_epochs": -1},
        {"every_n_epochs": 9},
        [0, 2],
    ),
    "no epochs": ({"max_epochs": 0}, {}, []),
    "gradient accumulation": ({"accumulate_grad_batches": 4}, {}, [0, 1, 2]),
    "gradient clipping": ({"gradient_clip_val": 0.1}, {}, [0, 1, 2]),
    "anomaly detection": ({"detect_anomaly": True}, {}, [0, 1, 2]),
    "samplers as they are": ({"use_distributed_sampler": False}, {}, [0, 1, 2]),
}


@functools.cache
def untouched(setting):
    with tempfile.TemporaryDirectory() as folder:
        return nets.train_and_trace(folder, **SETTINGS[setting][0])


@every_callback
@pytest.mark.parametrize("setting", SETTINGS)
def test_training_is_the_same_and_measured_when_due(callback_class, setting, tmp_path):
    trainer_options, options, expected = SETTINGS[setting]
    callback = callback_class(figures=False, **options)
    trace = nets.train_and_trace(tmp_path, [callback], **trainer_options)
    assert nets.same(trace, untouched(setting))
    assert epochs(callback) == expected
    assert callback.failures == 0


@every_callback
@pytest.mark.parametrize("steps", [0, 2, -1])
def test_nothing_is_measured_while_sanity_is_checked(callback_class, steps, tmp_path):
    class Reader(Callback):
        def on_sanity_check_end(self, *_):
            measured.append(len(callback.history))

    measured = []
    callback, without = (callback_class(probe="val", figures=False, **VALIDATION) for _ in "ab")
    train(tmp_path, [callback, Reader()], num_sanity_val_steps=steps)
    train(tmp_path, [without], num_sanity_val_steps=0)
    assert measured == ([0] if steps else [])
    assert quantities(callback) == quantities(without)


@every_callback
def test_each_logger_gets_every_key(callback_class, tmp_path):
    callback = callback_class(figures=False)
    both = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tb")]
    train(tmp_path, [callback], logger=both)
    keys = set(callback.history[0].values)
    assert keys <= set(records.csv_rows(tmp_path / "csv")[0])
    tags = records.tensorboard_events(tmp_path / "tb").Tags()["scalars"]
    assert set(map(records.tensorboard_key, keys)) <= set(tags)


class Tunable(nets.Classifier):
    """Has a learning rate and a batch size that finders may set."""

    lr, batch_size = 0.02, 3

    def __init__(self):
        super().__init__(freeze=0)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def train_dataloader(self):
        return DataLoader(mixed(), self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(mixed(seed=2), 10)


@every_callback
@pytest.mark.parametrize(
    ("finder", "found"),
    [
        (lambda: LearningRateFinder(num_training_steps=30), "lr"),
        (lambda: BatchSizeFinder(max_trials=1), "batch_size"),
    ],
    ids=["lr", "batch size"],
)
def test_what_a_finder_tries_before_training_is_not_measured(
    callback_class, finder, found, tmp_path
):
    class Reader(Callback):
        def on_train_epoch_start(self, *_):
            measured.append(epochs(callback))

    measured, callback = [], callback_class(figures=False)
    options = {"module": Tunable, "data": dict}
    run, plain = assert_untouched(tmp_path, callback, lambda: [finder(), Reader()], **options)
    assert measured[-2:] == [[0], [0, 1]]
    assert epochs(callback) == [0, 1, 2]
    tuned = getattr(run.lightning_module, found)
    assert tuned == getattr(plain.lightning_module, found) != getattr(Tunable, found)
    torch.manual_seed(5)
    first = measure(Tunable(), Probe(DataLoader(mixed(), 10), "train")).values
    shared = first.keys() & callback.history[0].values.keys()
    assert all(callback.history[0].values[k] == pytest.approx(first[k], rel=1e-4) for k in shared)


@every_callback
@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, [0, 1, 2, 3]), ({"every_n_epochs": 5}, [0, 3])],
    ids=["every epoch", "every fifth"],
)
def test_time_that_runs_out_ends_with_a_measurement(
    callback_class, options, expected, tmp_path, monkeypatch
):
    class Ticking(Callback):
        def on_train_batch_start(self, *_):
            clock.now += 1

    clock = SimpleNamespace(now=0, monotonic=lambda: clock.now)
    monkeypatch.setattr("pytorch_lightning.callbacks.timer.time", clock)
    callback = callback_class(figures=False, **options)
    limits = {"max_epochs": -1, "max_time": timedelta(seconds=8)}  # in the middle of the third
    run, _ = assert_untouched(tmp_path, callback, lambda: [Ticking()], **limits)
    assert run.global_step == 8
    assert epochs(callback) == expected
    assert callback.history[-1].epochs_completed == run.current_epoch
    assert callback.history[-1].step == 7


class Adversaries(nets.Classifier):
    """Two optimizers, stepped by hand."""

    def __init__(self):
        super().__init__(freeze=0)
        self.automatic_optimization = False
        self.generator = nn.Linear(4, 6)

    def training_step(self, batch, index):
        first, second = self.optimizers()
        noise = self.generator(torch.randn(len(batch[0]), 4))
        confidence = self(noise).logsumexp(1).mean()
        for optimizer, sign in ((first, 1), (second, -1)):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1]) + sign * confidence
            optimizer.zero_grad()
            self.manual_backward(loss, retain_graph=True)
        first.step()
        second.step()
        self.steps.append(float(loss))

    def configure_optimizers(self):
        parts = self.net, self.generator
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in parts], []


@every_callback
def test_two_optimizers_stepped_by_hand(callback_class, tmp_path):
    callback = callback_class(figures=False)
    run, _ = assert_untouched(tmp_path, callback, module=Adversaries)
    assert run.global_step == 12
    assert epochs(callback) == [0, 1, 2]
    assert [m.step for m in callback.history] == [0, 2, 5]  # as Lightning logs: batches


@every_callback
def test_early_stopping_waits_for_the_least_number_of_epochs(callback_class, tmp_path):
    callback = callback_class(every_n_epochs=10, figures=False)

    def stopping():
        return [EarlyStopping("val_loss", patience=1, min_delta=1e9)]

    assert_untouched(tmp_path, callback, stopping, min_epochs=4, max_epochs=9)
    assert epochs(callback) == [0, 4]


class Predicting(nets.Classifier):
    def predict_step(self, batch, _):
        return self(batch[0])


@every_callback
@pytest.mark.parametrize("inference_mode", [True, False])
def test_evaluation_and_prediction_leave_the_network_as_it_was(
    callback_class, inference_mode, tmp_path
):
    def stages(callbacks, expected):
        torch.manual_seed(5)
        module, loader = Predicting(), DataLoader(mixed(), 10)
        run = nets.trainer(tmp_path, callbacks, inference_mode=inference_mode)
        for stage, measured in zip(("predict", "validate", "test"), expected, strict=True):
            quiet = {} if stage == "predict" else {"verbose": False}
            getattr(run, stage)(module, loader, **quiet)
            assert [len(callback.history) for callback in callbacks] == measured
        return module.state_dict(), [m.training for m in module.modules()]

    callbacks = [callback_class(probe=name, figures=False) for name in ("train", "val", "test")]
    trace = stages(callbacks, [[0, 0, 0], [0, 1, 0], [0, 1, 1]])
    assert nets.same(trace, stages([], [[], [], []]))
    assert sum(callback.failures for callback in callbacks) == 0
