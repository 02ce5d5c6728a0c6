"""When callbacks measure, and what they note of it."""

import itertools

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, LocalElasticity, NeuralCollapse, Probe
from lightning_nc.callbacks.schedule import Schedule
from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

STREAM = nets.Stream(nets.vectors((20, 20, 20)))  # six batches


def epochs(callback, stage="fit"):
    return [m.epochs_completed for m in callback.history if m.stage == stage]


@pytest.mark.parametrize(
    ("options", "max_epochs", "expected"),
    [
        ({}, 3, [0, 1, 2, 3]),
        ({"every_n_epochs": 2}, 4, [0, 2, 4]),
        ({"every_n_epochs": 2}, 5, [0, 2, 4, 5]),
        ({"every_n_epochs": 100}, 3, [0, 3]),
        ({"epochs": [1, 3]}, 4, [1, 3]),
        ({"epochs": [0]}, 2, [0]),
        ({"epochs": [9]}, 2, []),
        ({"when": "validation_end", "every_n_epochs": 2}, 5, [0, 2, 4, 5]),
        ({"when": "validation_end", "epochs": [2]}, 3, [2]),
    ],
)
def test_the_epochs_that_are_due(options, max_epochs, expected, tmp_path):
    callback = NeuralCollapse(figures=False, **options)
    nets.fit(tmp_path, [callback], max_epochs=max_epochs)
    assert epochs(callback) == expected


@pytest.mark.parametrize("when", ["train_epoch_end", "validation_end"])
def test_the_last_epoch_is_measured_when_early_stopping_ends_the_run(when, tmp_path):
    callback = NeuralCollapse(every_n_epochs=5, figures=False, when=when)
    stopping = EarlyStopping("val_loss", patience=1, min_delta=1e9)
    nets.fit(tmp_path, [callback, stopping], max_epochs=20)
    assert epochs(callback) == [0, 2]


@pytest.mark.parametrize("max_steps", [4, 6])
def test_the_last_epoch_is_measured_when_the_steps_run_out(max_steps, tmp_path):
    callback = NeuralCollapse(every_n_epochs=5, figures=False)
    nets.fit(tmp_path, [callback], max_epochs=-1, max_steps=max_steps)
    assert epochs(callback) == [0, 2]
    assert callback.history[-1].step == max_steps - 1


def test_epochs_given_by_hand_leave_out_the_last_one_however_the_run_ends(tmp_path):
    callback = NeuralCollapse(epochs=[0, 1], figures=False)
    nets.fit(tmp_path, [callback], max_epochs=-1, max_steps=7)
    assert epochs(callback) == [0, 1]


@pytest.mark.parametrize("probe", ["train", "val"])
def test_validation_of_endless_data_counts_whole_epochs(probe, tmp_path):
    source = probe if probe == "val" else Probe(nets.vectors(), "train")
    callback = NeuralCollapse(probe=source, when="validation_end", figures=False)
    run = nets.trainer(tmp_path, [callback], max_epochs=3)
    loaders = DataLoader(STREAM, 10), DataLoader(nets.vectors(), 10)
    run.fit(nets.Classifier(freeze=0), *loaders)
    assert epochs(callback) == [0, 1, 2, 3]


@pytest.mark.parametrize("every_n_epochs", [1, 2])
def test_each_validation_within_epochs_of_unknown_length_is_measured(every_n_epochs, tmp_path):
    options = {"when": "validation_end", "every_n_epochs": every_n_epochs, "figures": False}
    together = [kind(probe="val", **options) for kind in (NeuralCollapse, EquiSeparation)]
    seen = []

    class Reader(Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                seen.append((trainer.global_step, float(trainer.callback_metrics["nc/val/nc1"])))

    run = nets.trainer(tmp_path, [*together, Reader()], max_epochs=3, val_check_interval=2)
    loaders = DataLoader(STREAM, 10), DataLoader(nets.vectors(seed=2), 10)
    run.fit(nets.Classifier(freeze=0), *loaders)
    # the length of the first epoch is known in the second
    of_epochs = [[0, 0, 1], [1 + 1 / 3, 1 + 2 / 3, 2], [2 + 1 / 3, 2 + 2 / 3, 3]]
    due = [each for n, each in enumerate(of_epochs, 1) if n in (every_n_epochs, 2, 3)]
    for callback in together:
        assert epochs(callback) == pytest.approx([0, *itertools.chain(*due)])
    if every_n_epochs == 1:
        values = together[0].history.series("nc/val/nc1")
        assert seen == list(zip(range(2, 20, 2), values[1:], strict=True))
        assert len(set(values)) == 10


def test_measurements_within_the_first_epoch_of_unknown_length_are_drawn_over_steps(tmp_path):
    options = {"probe": "val", "when": "validation_end", "figures": False}
    callbacks = [NeuralCollapse(**options, layers="blocks"), EquiSeparation(**options)]
    callbacks.append(LocalElasticity(**options))
    run = nets.trainer(tmp_path, callbacks, max_epochs=1, val_check_interval=2)
    loaders = DataLoader(STREAM, 10), DataLoader(nets.vectors(seed=2), 10)
    run.fit(nets.Classifier(freeze=0), *loaders)
    collapse, separation, elasticity = callbacks
    steps = [m.step for m in collapse.history]
    assert len(set(steps)) == 4
    for callback, figure in ((collapse, "epochs"), (elasticity, "ratio")):
        _, axes = callback.plot(figure)
        assert axes.get_lines()[0].get_xdata().tolist() == steps
        assert axes.get_xlabel() == "step"
    for callback, figure in ((collapse, "layers"), (separation, "epochs")):
        drawn, _ = callback.plot(figure)
        (bar,) = (bar for axes in drawn.axes for bar in axes.child_axes)
        shown = [float(label.get_text()) for label in bar.get_yticklabels()]
        assert (bar.get_ylabel(), shown) == ("step", [steps[0], steps[2], steps[3]])
    lines = separation.record.measure.tables(separation.record.timeline_of(separation.history))
    assert list(lines["layers_by_epoch"].lines) == [f"step {step}" for step in steps]
    assert [m.when for m in collapse.history] == [
        "0 epochs",
        *(f"step {step} of the first epoch" for step in steps[1:3]),
        "1 epoch",
    ]


def test_validation_every_other_epoch_is_measured_when_it_happens(tmp_path):
    callback = NeuralCollapse(when="validation_end", figures=False)
    nets.fit(tmp_path, [callback], max_epochs=5, check_val_every_n_epoch=2)
    assert epochs(callback) == [0, 2, 4, 5]


def test_a_measurement_says_when_it_was_of_what_and_what_it_cost(tmp_path):
    callback = NeuralCollapse(probe=Probe(samples_per_class=9), figures=False)
    nets.fit(tmp_path, [callback])
    assert [m.step for m in callback.history] == [0, 2, 5]
    for m in callback.history:
        assert m.counts.tolist() == [9, 9, 9]  # of 12, 9, 9
        assert m.stage == "fit"
        assert m.values["nc/train/seconds"] == m.seconds > 0
        assert m.values["nc/train/epochs_completed"] == m.epochs_completed
        assert m.arrays["cosines_of_means"].shape == (3, 3)


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("cache_mb", [512, 0])
def test_validate_and_test_measure_once_what_is_theirs(stage, cache_mb, tmp_path):
    source = {"validate": "val", "test": "test"}[stage]
    by_source = {
        name: NeuralCollapse(probe=Probe(name, cache_mb=cache_mb), figures=False)
        for name in ("train", "val", "test")
    }
    own = NeuralCollapse(probe=Probe(nets.vectors(), "own", cache_mb=cache_mb), epochs=[])
    run = nets.trainer(tmp_path, [*by_source.values(), own])
    loader = DataLoader(nets.vectors(), 10)
    getattr(run, stage)(nets.Classifier(freeze=0), loader, verbose=False)
    for name, callback in by_source.items():
        assert len(callback.history) == (name == source)
    assert epochs(own, stage) == [0]
    kept = own.history[0].arrays["cosines_of_means"]
    assert not kept.is_inference()
    assert f"nc/{source}/nc1" in run.callback_metrics


def test_evaluation_after_training_adds_to_the_history(tmp_path):
    callback, tested = (NeuralCollapse(probe=name, figures=False) for name in ("val", "test"))
    run = nets.fit(tmp_path, [callback, tested])
    loader = DataLoader(nets.vectors((10, 10, 10)), 10)  # other data than in training
    run.validate(run.lightning_module, loader, verbose=False)
    run.test(run.lightning_module, loader, verbose=False)
    assert epochs(callback) == [0, 1, 2]
    assert epochs(callback, "validate") == epochs(tested, "test") == [2]
    for each in (callback, tested):
        assert each.history[-1].counts.tolist() == [10, 10, 10]
        assert each.history[-1].step == 6  # under which Lightning logs it, after six batches


def test_to_evaluate_other_data_is_no_change_to_be_told(tmp_path):
    callback = NeuralCollapse(probe="val", figures=False)
    run = nets.trainer(tmp_path, [callback])
    for sizes in ((10, 10, 10), (12, 9, 9)):
        run.validate(nets.Classifier(), DataLoader(nets.vectors(sizes), 10), verbose=False)
    assert [m.counts.tolist() for m in callback.history] == [[10, 10, 10], [12, 9, 9]]


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize(
    ("saved", "number"),
    [
        ({"save_on_train_epoch_end": True}, 3),
        ({"save_on_train_epoch_end": False}, 6),
        ({"every_n_train_steps": 1}, 12),
    ],
)
def test_a_checkpoint_is_measured_as_of_the_epoch_that_it_is_of(saved, number, stage, tmp_path):
    checkpoints = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **saved)
    options = {"enable_checkpointing": True, "val_check_interval": 0.5, "max_epochs": 3}
    nets.fit(tmp_path, [checkpoints], batch_size=8, **options)  # four batches per epoch
    paths = sorted(tmp_path.glob("step=*.ckpt"))
    assert len(paths) == number
    callback = NeuralCollapse(probe={"validate": "val", "test": "test"}[stage], figures=False)
    run = nets.trainer(tmp_path, [callback], enable_checkpointing=True)
    module, loader = nets.Classifier(freeze=0), DataLoader(nets.vectors(), 10)
    for path in paths:
        getattr(run, stage)(module, loader, ckpt_path=path, verbose=False)
    steps = [int(path.stem.removeprefix("step=")) for path in paths]
    # Lightning counts a step after the hooks that follow it, in which a checkpoint may be written
    assert all(m.step in (step, step - 1) for m, step in zip(callback.history, steps, strict=True))
    # within the first epoch it cannot be told how long epochs are
    assert epochs(callback, stage) == [step / 4 if step >= 4 else 0 for step in steps]
    getattr(run, stage)(module, loader, verbose=False)
    assert callback.history[-1].step == 0  # of no checkpoint, by a Trainer that has not trained


def test_another_network_can_be_validated_with_the_same_trainer(tmp_path):
    callback = NeuralCollapse(probe="val", figures=False)
    run = nets.trainer(tmp_path, [callback])
    loader = DataLoader(nets.vectors(), 10)
    narrow = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    for net in (nets.mlp(), narrow):
        run.validate(nets.Classifier(net), loader, verbose=False)
    assert len(callback.history) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs must be 1 or more, got 0"),
        ({"epochs": [-1]}, "epochs must be 0 .before training. or more"),
        ({"when": "never"}, "when must be"),
    ],
)
def test_a_schedule_that_is_never_due_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**options)
    with pytest.raises(ValueError, match=message):
        NeuralCollapse(**options)
