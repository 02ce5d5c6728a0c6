"""Histories are in order, those of several runs apart, and what does not compare is said."""

import copy
import pickle
import warnings

import pytest
import torch
from lightning_utilities.core import rank_zero
from torch import nn
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, NeuralCollapse, Probe
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from tests import nets
from tests.callbacks.runs import epochs, quantities

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def fit(folder, callback, data=None, ckpt_path=None, beside=(), **options):
    run = nets.trainer(folder, [callback, *beside], **options)
    loader = DataLoader(data or nets.vectors(), 10)
    torch.manual_seed(5)
    run.fit(nets.Classifier(freeze=0), loader, loader, ckpt_path=ckpt_path)
    return run


@pytest.fixture
def told(monkeypatch):
    """What is told, as warnings and in Lightning's log."""
    texts = []
    monkeypatch.setattr(rank_zero.log, "info", lambda text, *_, **__: texts.append(text))
    monkeypatch.setattr(warnings, "showwarning", lambda text, *_, **__: texts.append(str(text)))
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield texts


def of_histories(told):
    return [text for text in told if "keeps the histories of runs apart" in text]


def of_changes(told):
    return [text for text in told if "Do not compare" in text]


def test_one_callback_over_several_folds_keeps_them_apart(tmp_path, told):
    callback = NeuralCollapse(figures=False)
    alone = [NeuralCollapse(figures=False) for _ in range(3)]
    beside = [EquiSeparation(figures=False)]
    for fold, other in enumerate(alone):
        data = nets.vectors(seed=fold)
        fit(tmp_path, other, data)
        fit(tmp_path, callback, data, beside=beside)
        assert len(callback.histories) == fold + 1
    assert [quantities(other) for other in alone] == [
        [{k: str(v) for k, v in m.values.items() if not k.endswith("seconds")} for m in history]
        for history in callback.histories
    ]
    assert callback.history == callback.histories[-1]
    assert callback.terminal_epoch == alone[-1].terminal_epoch
    # once in each run that is not the first, whatever the number of callbacks
    assert [text.count("2 before it") for text in of_histories(told)] == [0, 1]
    assert of_changes(told) == []


class Ordered(nn.Module):
    """Layers that run in a given order."""

    def __init__(self, order):
        super().__init__()
        self.layers, self.order = nn.ModuleList(nn.Linear(6, 6) for _ in order), order
        self.nonlinearities, self.head = nn.ModuleList(nn.Tanh() for _ in order), nn.Linear(6, 3)

    def forward(self, x):
        for n in self.order:
            x = self.nonlinearities[n](self.layers[n](x))
        return self.head(x)


def test_each_run_finds_the_layers_of_its_network_anew(tmp_path):
    """In networks of the same modules that run in another order."""
    callback = EquiSeparation(figures=False)
    for order in ([0, 1, 2], [2, 0, 1]):
        nets.fit(tmp_path, [callback], net=Ordered(order), max_epochs=1)
        layers = [key.rpartition("/")[2] for key in callback.history[0].values if "_layers/" in key]
        assert layers == ["input", *(f"net.nonlinearities.{n}" for n in order)]


def test_what_is_validated_before_training_stays_before_it(tmp_path, told):
    callback = NeuralCollapse(probe="val", figures=False)
    loader = DataLoader(nets.vectors(), 10)
    run = nets.trainer(tmp_path, [callback])
    module = nets.Classifier(freeze=0)
    run.validate(module, loader, verbose=False)
    run.fit(module, loader, loader)
    run.validate(module, loader, verbose=False)
    assert [(m.stage, m.epochs_completed) for m in callback.history] == [
        *(("validate", 0), ("fit", 0), ("fit", 1), ("fit", 2), ("validate", 2))
    ]
    assert len(callback.histories) == 1
    assert of_histories(told) == []


def test_what_is_tested_between_two_runs_belongs_to_the_first(tmp_path):
    callback = NeuralCollapse(probe=Probe(nets.vectors(), "own"), figures=False)
    run = fit(tmp_path, callback, max_epochs=1)
    run.test(run.lightning_module, DataLoader(nets.vectors(), 10), verbose=False)
    fit(tmp_path, callback, max_epochs=1)
    stages = [[m.stage for m in history] for history in callback.histories]
    assert stages == [["fit", "fit", "test"], ["fit", "fit"]]


def test_to_go_on_from_an_earlier_checkpoint_loses_nothing(tmp_path, told):
    callback = NeuralCollapse(figures=False)
    path = tmp_path / "one.ckpt"
    fit(tmp_path, callback, max_epochs=1).save_checkpoint(path)
    fit(tmp_path, callback, max_epochs=3, ckpt_path=path)  # the whole history goes on
    assert [epochs(callback), len(callback.histories)] == [[0, 1, 2, 3], 1]
    assert of_histories(told) == []
    fit(tmp_path, callback, max_epochs=2, ckpt_path=path)
    whole, again = callback.histories
    assert [m.epochs_completed for m in whole] == [0, 1, 2, 3]
    assert [m.epochs_completed for m in again] == [0, 1, 2]
    assert again[:2] == whole[:2]
    assert len(of_histories(told)) == 1


def train_in_turns(folder, callback, modules, trainers=1, from_zero=False):
    """Train modules twice, in turns, for an epoch at a time."""
    runs = [nets.trainer(folder, [callback], max_epochs=1) for _ in range(trainers)]
    for turn in range(4):
        run, place = runs[turn % trainers], turn % len(modules)
        if from_zero:  # as in loops over folds that keep one Trainer
            run.fit_loop.epoch_progress.reset()
        else:
            run.fit_loop.max_epochs = run.current_epoch + 1
        run.fit(modules[place], DataLoader(nets.vectors(seed=place), 10))


TURNS = {
    "a Trainer each": ({"trainers": 2}, [[0, 1], [0, 1], [1, 2], [1, 2]]),
    "one Trainer": ({}, [[0, 1], [1, 2], [2, 3], [3, 4]]),
    "one Trainer, whose epochs are reset": ({"from_zero": True}, [[0, 1]] * 4),
}


@pytest.mark.parametrize("kind", nets.CALLBACKS)
@pytest.mark.parametrize("turns", TURNS)
def test_networks_that_are_trained_in_turns_are_kept_apart(kind, turns, tmp_path):
    options, expected = TURNS[turns]
    torch.manual_seed(5)
    callback = kind(figures=False)
    train_in_turns(tmp_path, callback, [nets.Classifier(freeze=0) for _ in "ab"], **options)
    histories = callback.histories
    assert [[m.epochs_completed for m in history] for history in histories] == expected
    book = {callback.record.prefix + row.name for row in BOOKKEEPING}
    for place in range(2):  # a network is as it was at the end of its turn before
        then, now = histories[place][-1].values, histories[place + 2][0].values
        shared = then.keys() & now.keys() - book
        assert {k: str(then[k]) for k in shared} == {k: str(now[k]) for k in shared} != {}


def test_one_network_that_is_trained_further_has_one_history(tmp_path):
    callback = NeuralCollapse(figures=False)
    train_in_turns(tmp_path, callback, [nets.Classifier(freeze=0)])
    copied = pickle.loads(pickle.dumps(callback))
    assert [epochs(each) for each in (callback, copied)] == [[0, 1, 2, 3, 4]] * 2
    assert len(callback.histories) == len(copied.histories) == 1


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_goes_on_with_the_history(copy_of, tmp_path):
    """And copying leaves the plan of the next measurement to the original."""
    callback = NeuralCollapse(figures=False)
    run = fit(tmp_path, callback)
    run.callbacks[0] = copied = copy_of(callback)
    run.fit_loop.max_epochs = 3
    run.fit(run.lightning_module, DataLoader(nets.vectors(), 10))
    assert [epochs(copied), len(copied.histories)] == [[0, 1, 2, 3], 1]
    assert callback.record.plans


def test_to_validate_an_early_checkpoint_loses_nothing(tmp_path):
    callback, path = NeuralCollapse(probe="val", figures=False), tmp_path / "one.ckpt"
    fit(tmp_path, callback, max_epochs=1).save_checkpoint(path)
    run = fit(tmp_path, callback, max_epochs=3, ckpt_path=path)
    loader = DataLoader(nets.vectors(), 10)
    run.validate(run.lightning_module, loader, ckpt_path=path, verbose=False)
    assert [(m.stage, m.epochs_completed) for m in callback.history] == [
        *(("fit", 0), ("fit", 1), ("fit", 2), ("fit", 3), ("validate", 1))
    ]
    assert len(callback.histories) == 1


def test_a_resumed_run_with_another_probe_says_so_once(tmp_path, told):
    path = tmp_path / "one.ckpt"
    fit(tmp_path, NeuralCollapse(figures=False), max_epochs=1).save_checkpoint(path)
    probe = Probe("train", samples_per_class=5, seed=3)
    callback = NeuralCollapse(probe=probe, figures=False)
    fit(tmp_path, callback, max_epochs=4, ckpt_path=path)
    assert epochs(callback) == [0, 1, 2, 3, 4]
    assert [m.counts.tolist() for m in callback.history] == [[12, 9, 9]] * 2 + [[5, 5, 5]] * 3
    assert [m.probe["seed"] for m in callback.history] == ["0", "0", "3", "3", "3"]
    (sentence,) = of_changes(told)
    assert sentence == (
        "NeuralCollapse on 'train': what is measured has changed after 2 epochs: "
        "samples_per_class was 100 and is 5; seed was 0 and is 3; class counts were 12, 9, 9 and "
        "are 5 for 3 classes. Do not compare values across this change."
    )


def test_a_resumed_run_with_other_layers_says_so_and_each_measurement_keeps_its_own(tmp_path, told):
    path = tmp_path / "one.ckpt"
    fit(tmp_path, EquiSeparation(figures=False), max_epochs=1).save_checkpoint(path)
    callback = EquiSeparation(layers=["net.0", "net.2", "net.4"])
    fit(tmp_path, callback, max_epochs=3, ckpt_path=path)
    layers = [
        [key.rpartition("/")[2] for key in m.values if "_layers/" in key] for m in callback.history
    ]
    assert layers == [["input", "net.2", "net.6"]] * 2 + [["net.0", "net.2", "net.4"]] * 2
    (sentence,) = of_changes(told)
    assert "the layers were input, net.2, net.6 and are net.0, net.2, net.4" in sentence
    assert callback.plot("epochs")[0].axes


def test_data_of_other_classes_in_a_resumed_run_are_told(tmp_path, told):
    path = tmp_path / "one.ckpt"
    fit(tmp_path, NeuralCollapse(figures=False), max_epochs=1).save_checkpoint(path)
    callback = NeuralCollapse(figures=False)
    fit(tmp_path, callback, nets.vectors((12, 18)), max_epochs=2, ckpt_path=path)
    assert [len(m.counts) for m in callback.history] == [3, 3, 2]
    (sentence,) = of_changes(told)
    assert "class counts were 12, 9, 9 and are 12, 18" in sentence
