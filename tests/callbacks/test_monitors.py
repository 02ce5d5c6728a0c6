"""EarlyStopping and ModelCheckpoint on logged keys: what they see, and when they act."""

import contextlib
import inspect
import math
from datetime import timedelta

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, NeuralCollapse, Probe
from tests import nets
from tests.callbacks.runs import epochs

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

NC1 = "nc/train/nc1"
VALIDATION = {"when": "validation_end"}
HALVES = {"val_check_interval": 0.5}  # of three batches: after the first, second and third
CLOCK = {"val_check_interval": timedelta(hours=1)}
INTERVAL = inspect.signature(Trainer).parameters["val_check_interval"]
needs_clock = pytest.mark.skipif(
    "timedelta" not in str(INTERVAL.annotation), reason="Lightning validates by batches alone"
)
EVERY_OTHER = {"check_val_every_n_epoch": 2}


class Scripted(NeuralCollapse):
    """Measures as ever, and then gives values of a script: the first is of before training."""

    def __init__(self, script, **options):
        super().__init__(figures=False, **options)
        self.script = script
        nets.through(self, "evaluate", self.rewrite)

    def rewrite(self, evaluation):
        last = min(len(self.history), len(self.script) - 1)
        evaluation.values["nc1"] = self.script[last]
        return evaluation


class Seen(EarlyStopping):
    """Keeps what it sees."""

    def __init__(self, monitor=NC1, **options):
        super().__init__(monitor, **options)
        self.seen = []

    def _evaluate_stopping_criteria(self, current):
        self.seen.append(float(current))
        return super()._evaluate_stopping_criteria(current)


EPOCH_END = {"check_on_train_epoch_end": True}
DOWN = range(9, 0, -1)

# what the callback, EarlyStopping and the Trainer are told; the values measured, of which the first
# is from before training; those that EarlyStopping sees, and when they were measured
STOPS = {
    "threshold": ({}, {"stopping_threshold": 6}, {}, DOWN, [8, 7, 6, 5], [0, 1, 2, 3, 4]),
    "divergence": ({}, {"divergence_threshold": 8}, {}, [9, 5, 8.5], [5, 8.5], [0, 1, 2]),
    "patience": ({}, {"patience": 2}, {}, [9, 5, 6, 4, 5, 5], [5, 6, 4, 5, 5], [*range(6)]),
    "maximum": ({}, {"mode": "max", "patience": 1}, {}, [0, 1, 2, 1], [1, 2, 1], [0, 1, 2, 3]),
    # epochs without a measurement are checks, too, of the last value
    "every other": ({"every_n_epochs": 2}, {"patience": 1}, {}, DOWN, [9, 8, 8], [0, 2, 3]),
    "every third": ({"every_n_epochs": 3}, {"patience": 2}, {}, DOWN, [9, 9, 8, 8, 8], [0, 3, 5]),
    "patient": (
        {"every_n_epochs": 2},
        {"patience": 2},
        {"max_epochs": 6},
        DOWN,
        [9, 8, 8, 7, 7, 6],
        [0, 2, 4, 6],
    ),
    # checks are counted in epochs, or in validations
    "halves, epochs": ({}, {"patience": 1} | EPOCH_END, HALVES, [9, 5, 6], [5, 6], [0, 1, 2]),
    "other, epochs": ({}, {"patience": 1} | EPOCH_END, EVERY_OTHER, [9, 5, 6], [5, 6], [0, 1, 2]),
    "validation": (VALIDATION, {"patience": 1}, {}, [9, 5, 6], [5, 6], [0, 1, 2]),
    "every other validation": (
        VALIDATION,
        {"patience": 1},
        EVERY_OTHER,
        [9, 5, 6],
        [5, 6],
        [0, 2, 4],
    ),
    "end of an epoch": (
        VALIDATION,
        {"patience": 2},
        HALVES,
        [9, 5, 4, 3, 5, 4],
        [5, 4, 3, 5, 4],
        [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2],  # the last epoch ends where training was stopped
    ),
}


# at the end of validation Lightning calls callbacks in their order, else monitors last
IN_ORDER = {"every other validation", "end of an epoch"}
ORDERS = [
    (case, first) for first in (False, True) for case in STOPS if not first & (case in IN_ORDER)
]


@pytest.mark.parametrize(("case", "stopping_first"), ORDERS)
def test_early_stopping_stops_after_what_it_has_seen(case, stopping_first, tmp_path):
    options, stopping, trainer_options, script, seen, measured = STOPS[case]
    callback, watcher = Scripted(script, **options), Seen(**stopping)
    both = [watcher, callback] if stopping_first else [callback, watcher]
    nets.fit(tmp_path, both, **({"max_epochs": 12} | trainer_options))
    assert watcher.seen == seen
    assert epochs(callback) == pytest.approx(measured)


@pytest.mark.parametrize("kind", [EquiSeparation, NeuralCollapse])
def test_a_real_quantity_stops_training_in_the_epoch_in_which_it_passes_a_threshold(kind, tmp_path):
    key = {EquiSeparation: "separation/train/total", NeuralCollapse: NC1}[kind]
    free, callback = kind(figures=False), kind(figures=False)
    nets.fit(tmp_path, [free], max_epochs=8)
    values = [m.values[key] for m in free.history[1:]]
    lowest = [v for i, v in enumerate(values) if v < min(values[:i], default=math.inf)]
    assert len(lowest) > 2
    threshold = (lowest[-1] + lowest[-2]) / 2
    nets.fit(tmp_path, [callback, EarlyStopping(key, stopping_threshold=threshold)], max_epochs=8)
    assert len(callback.history) == values.index(lowest[-1]) + 2


@pytest.mark.parametrize(
    ("options", "saving", "trainer_options", "best"),
    [
        ({}, {}, {}, 3),
        (VALIDATION, {}, {}, 3),
        (VALIDATION, {}, HALVES, 1),  # the third validation is at the end of the first epoch
        (VALIDATION, {}, EVERY_OTHER, 6),
        ({}, {"save_on_train_epoch_end": True}, HALVES, 3),
        ({}, {"save_on_train_epoch_end": True}, EVERY_OTHER, 3),
        ({"every_n_epochs": 3}, {"mode": "max"}, {}, 1),  # the value of before training
    ],
)
def test_the_best_checkpoint_is_of_the_epoch_that_the_history_says(
    options, saving, trainer_options, best, tmp_path
):
    callback = Scripted([9, 5, 4, 1, 2, 3, 8, 7, 6, 5], **options)
    keeper = ModelCheckpoint(tmp_path, monitor=NC1, save_top_k=1, filename="best", **saving)
    nets.fit(
        tmp_path,
        [callback, keeper],
        **({"max_epochs": 6, "enable_checkpointing": True} | trainer_options),
    )
    checkpoint = torch.load(keeper.best_model_path, weights_only=True)
    assert checkpoint["epoch"] + 1 == best
    least = saving.get("mode") != "max"
    values = [m.values[NC1] for m in callback.history if m.epochs_completed or not least]
    assert float(keeper.best_model_score) == (min if least else max)(values)


def test_the_best_real_value_is_kept(tmp_path):
    callback = NeuralCollapse(figures=False)
    keeper = ModelCheckpoint(tmp_path, monitor=NC1, save_top_k=1, filename="best")
    nets.fit(tmp_path, [callback, keeper], enable_checkpointing=True, max_epochs=6)
    best = min(callback.history[1:], key=lambda m: m.values[NC1])
    assert (
        torch.load(keeper.best_model_path, weights_only=True)["epoch"] + 1 == best.epochs_completed
    )
    assert float(keeper.best_model_score) == best.values[NC1]


class Diverging(nets.Classifier):
    """Its features are NaN from the third epoch on."""

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        if self.current_epoch == 2:
            self.net[4].weight.data.fill_(math.nan)


def test_early_stopping_does_not_stop_at_features_that_are_not_finite(tmp_path):
    callback, watcher = NeuralCollapse(figures=False), Seen(patience=9)
    run = nets.trainer(tmp_path, [callback, watcher], max_epochs=4)
    with nets.our_warnings() as told:
        run.fit(Diverging(freeze=0), DataLoader(nets.vectors(), 10))
    assert epochs(callback) == [0, 1, 2]
    assert callback.failures == len(told) == 2  # the cause, and how often
    assert all("not finite" in message for message in told)
    assert "2 of 5 measurements were skipped" in told[-1]
    values = [m.values[NC1] for m in callback.history]
    assert watcher.seen == [values[1], values[2], values[2], values[2]]
    assert watcher.stopped_epoch == 0


def test_what_is_nan_for_two_classes_is_not_among_what_monitors_see(tmp_path):
    class Reader(Callback):
        def on_train_epoch_end(self, trainer, _):
            seen.append({k: float(v) for k, v in trainer.callback_metrics.items() if "nc/" in k})

    seen, callback = [], NeuralCollapse(figures=False)
    with nets.our_warnings() as told:
        nets.fit(
            tmp_path,
            [callback, Seen(), Reader()],
            data=nets.vectors((15, 12)),
            net=nets.mlp(K=2),
        )
    assert len(told) == 1
    assert "nc2_equinorm_means" in told[0]
    values = callback.history[-1].values
    assert {k for k, v in values.items() if math.isnan(v)} == values.keys() - seen[-1].keys()
    assert all(math.isfinite(v) for metrics in seen for v in metrics.values())
    assert len(seen) == 2


# what the Trainer, the callback and the monitor are told, and what the advice names
ADVICE = {
    "no value before training": ({}, {"epochs": [2]}, {}, ["Add 0", "strict=False"]),
    "validation within epochs": (HALVES, {}, {}, ["OPTION=True", 'when="validation_end"']),
    "validation every other epoch": (EVERY_OTHER, {}, {}, ["OPTION=True", 'when="validation_end"']),
    "asked to look after validation": ({}, {}, {"OPTION": False}, ["OPTION=True"]),
    "all is well": ({}, {}, {}, []),
    "0 among the epochs": ({}, {"epochs": [0, 2]}, {}, []),
    "measured in time for epoch ends": ({}, VALIDATION, {}, []),
    "both at epoch ends": (HALVES, {}, {"OPTION": True}, []),
    "no validation": (HALVES | {"limit_val_batches": 0}, {}, {"OPTION": True}, []),
    "validation by the clock": (CLOCK, {}, {"OPTION": False}, ["OPTION=True"]),
    "validation by the clock, both at epoch ends": (CLOCK, {}, {"OPTION": True}, []),
    "fast_dev_run": (HALVES | {"fast_dev_run": True}, {}, {}, []),
}


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (EarlyStopping, "check_on_train_epoch_end"),
        (ModelCheckpoint, "save_on_train_epoch_end"),
    ],
)
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[needs_clock] * ("clock" in case)) for case in ADVICE]
)
@pytest.mark.parametrize("callback_first", [True, False])
def test_advice_is_given_exactly_where_a_monitor_would_look_too_early(
    kind, option, case, callback_first, tmp_path
):
    trainer_options, options, watching, parts = ADVICE[case]
    watcher = kind(monitor=NC1, **({option: watching["OPTION"]} if watching else {}))
    callback = NeuralCollapse(figures=False, **options)
    both = [callback, watcher] if callback_first else [watcher, callback]
    run = nets.trainer(tmp_path, both, enable_checkpointing=True, **trainer_options)
    loader = DataLoader(nets.vectors(), 10)
    # Lightning stops where a value is missing
    with nets.our_warnings() as told, contextlib.suppress(RuntimeError, MisconfigurationException):
        run.fit(nets.Classifier(freeze=0), loader, loader)
    advice = [message for message in told if kind.__name__ in message]
    assert len(advice) == bool(parts), told
    for part in parts:
        if part == "strict=False" and kind is ModelCheckpoint:
            assert part not in advice[0]
        else:
            assert part.replace("OPTION", option) in advice[0]
    assert told == advice


@pytest.mark.parametrize("stopping_first", [True, False])
def test_early_stopping_that_looks_before_validation_is_measured_is_advised(
    stopping_first, tmp_path
):
    callback, watcher = NeuralCollapse(figures=False, **VALIDATION), Seen(patience=9)
    both = [watcher, callback] if stopping_first else [callback, watcher]
    with nets.our_warnings() as told:
        nets.fit(tmp_path, both, **HALVES)
    assert len([m for m in told if "list it after NeuralCollapse" in m]) == stopping_first
    values = [m.values[NC1] for m in callback.history]
    assert watcher.seen == (values[:-1] if stopping_first else values[1:])


class Pruner(Callback):
    """Looks when validation ends, as `PyTorchLightningPruningCallback` of Optuna does."""

    def __init__(self):
        self.monitor, self.seen = NC1, []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.seen.append(trainer.callback_metrics[NC1].item())


class Reporter(Callback):
    """Looks when an epoch ends, as `RayTrainReportCallback` does, where it is in the list."""

    def __init__(self):
        self.monitor, self.seen = NC1, []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append(trainer.callback_metrics[NC1].item())


# which monitor, whether it is listed first, what our callback is told, and what the advice says
OTHERS = {
    "a pruner": (Pruner, False, {}, ['when="validation_end"', "list Pruner after it"]),
    "a pruner before": (Pruner, True, {}, ['when="validation_end"', "list Pruner after it"]),
    "a pruner that is in time": (Pruner, False, VALIDATION, []),
    "a pruner too early": (Pruner, True, VALIDATION, ["previous validation", "list it after"]),
    "a reporter": (Reporter, False, {}, []),
    "a reporter before": (Reporter, True, {}, ["previous epoch", "list it after Neural"]),
    "a reporter after validation": (Reporter, True, VALIDATION, []),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_monitor_of_another_library_is_advised_where_it_sees_old_values(case, tmp_path):
    kind, first, options, parts = OTHERS[case]
    callback, watcher = NeuralCollapse(figures=False, **options), kind()
    both = [watcher, callback] if first else [callback, watcher]
    with nets.our_warnings() as told:
        nets.fit(tmp_path, both)
    assert len(told) == bool(parts)
    assert all(part in told[0] for part in parts)
    values = [m.values[NC1] for m in callback.history]
    assert watcher.seen == (values[:-1] if parts else values[1:])


def test_a_monitor_without_validation_to_wait_for_is_not_advised(tmp_path):
    with nets.our_warnings() as told:
        nets.fit(tmp_path, [NeuralCollapse(figures=False), Pruner()], limit_val_batches=0)
    assert told == []


@needs_clock
def test_a_checkpoint_that_waits_for_validation_by_the_clock_is_advised(tmp_path):
    keeper = ModelCheckpoint(tmp_path, monitor=NC1)
    callback = NeuralCollapse(figures=False)
    with nets.our_warnings() as told:
        nets.fit(tmp_path, [callback, keeper], enable_checkpointing=True, **CLOCK)
    assert len(told) == 1
    assert "save_on_train_epoch_end=True" in told[0]
    assert epochs(callback) == [0, 1, 2]


@needs_clock
def test_a_run_that_validates_by_the_clock_is_resumed(tmp_path):
    callbacks = [NeuralCollapse(figures=False) for _ in range(2)]
    nets.fit(tmp_path, callbacks[:1], **CLOCK).save_checkpoint(tmp_path / "2.ckpt")
    resuming = {"ckpt_path": tmp_path / "2.ckpt"}
    nets.fit(tmp_path, callbacks[1:], max_epochs=3, fit_options=resuming, **CLOCK)
    assert [epochs(each) for each in callbacks] == [[0, 1, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize("strict", [True, False])
def test_a_first_measurement_that_fails_says_how_training_could_go_on(strict, tmp_path):
    callback = NeuralCollapse(probe=Probe(nets.Broken(), "broken"), figures=False)
    watcher = EarlyStopping("nc/broken/nc1", strict=strict)
    stopped = pytest.raises(RuntimeError, match="nc/broken/nc1")
    with nets.our_warnings() as told, stopped if strict else contextlib.nullcontext():
        nets.fit(tmp_path, [callback, watcher])
    assert callback.failures == (2 if strict else 3)
    skipped = [m for m in told if "skipped" in m]
    assert len([m for m in skipped if "skipped the measurement" in m]) == 1
    often = [m for m in skipped if "3 of 3 measurements were skipped" in m]
    assert len(often) == len(skipped) - 1 == (0 if strict else 1)  # at the end of training
    assert len([m for m in told if "EarlyStopping" in m and "strict=False" in m]) == int(strict)


def test_a_monitor_that_does_not_insist_on_a_value_is_not_advised(tmp_path):
    callback = NeuralCollapse(epochs=[2], figures=False)
    watcher = Seen(strict=False)
    with nets.our_warnings() as told:
        nets.fit(tmp_path, [callback, watcher], max_epochs=3)
    assert told == []
    (measurement,) = callback.history
    assert watcher.seen == [measurement.values[NC1]] * 2


def test_a_monitor_of_what_testing_alone_measures_is_advised(tmp_path):
    watcher = EarlyStopping("nc/test/nc1", strict=False)
    with nets.our_warnings() as told:
        nets.fit(tmp_path, [NeuralCollapse(probe="test", figures=False), watcher])
    assert told == [
        "EarlyStopping monitors 'nc/test/nc1', but only trainer.test() measures 'test'. "
        "Monitor another key."
    ]


def test_a_callback_whose_monitor_cannot_be_told_is_no_monitor(tmp_path):
    class Undecided(Callback):
        @property
        def monitor(self):
            raise RuntimeError("chosen in the first epoch")

    callback = NeuralCollapse(figures=False)
    with nets.our_warnings() as told:
        nets.fit(tmp_path, [callback, Undecided()])
    assert told == []
    assert epochs(callback) == [0, 1, 2]


def test_without_validation_checkpoints_look_at_epoch_ends_and_early_stopping_never(tmp_path):
    options = HALVES | {"limit_val_batches": 0}
    watcher, keeper = Seen(), ModelCheckpoint(tmp_path, monitor=NC1)
    with nets.our_warnings() as told:
        nets.fit(tmp_path, [NeuralCollapse(figures=False), watcher], **options)
    assert watcher.seen == []
    assert ["check_on_train_epoch_end=True" in text for text in told] == [True]
    with nets.our_warnings() as told:
        callbacks = [NeuralCollapse(figures=False), keeper]
        nets.fit(tmp_path, callbacks, enable_checkpointing=True, **options)
    assert keeper.best_model_score is not None
    assert told == []


@pytest.mark.parametrize("key", ["val_loss", "nc/val/nc1", "nc/train2/nc1", "separation/train/rho"])
def test_monitors_of_what_a_callback_does_not_log_are_not_advised(key, tmp_path):
    watcher = EarlyStopping(key, strict=False)
    with nets.our_warnings() as told:
        nets.fit(tmp_path, [NeuralCollapse(figures=False), watcher], **HALVES)
    assert told == []
