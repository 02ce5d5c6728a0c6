"""Which keys are logged, and what monitors make of them."""

import logging
import math

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, NeuralCollapse, Probe
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from tests import nets
from tests.callbacks import records

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

# logged on request alone
ON_REQUEST = {"predicted_cos", "critical_ratio"}
ON_REQUEST |= {f"relative_similarity_{of}" for of in ("intra", "inter", "seconds")}


def keys_of(callback_class, on_request=False):
    """The keys that the rows of a callback's measure promise."""
    measure = callback_class().measure
    rows = [row for row in measure.quantities if on_request or row.name not in ON_REQUEST]
    keys = {f"{measure.family}/{{p}}/{row.name}" for row in (*rows, *BOOKKEEPING)}
    for row in measure.layer_quantities:
        name = f"/{row.name}" if row.name else ""
        keys.add(f"{measure.family}_layers/{{p}}/{{layer}}{name}")
    return keys


def filled_in(keys, probe, layers):
    return {
        key.replace("{p}", probe).replace("{layer}", layer)
        for key in keys
        for layer in (layers if "{layer}" in key else [""])
    }


OF_OWN_DATA = [(kind, "mine") for kind in nets.CALLBACKS]


@pytest.mark.parametrize(("callback_class", "probe"), [*OF_OWN_DATA, (EquiSeparation, "train")])
def test_the_logged_keys_are_those_of_the_rows(callback_class, probe, tmp_path):
    keys = keys_of(callback_class)
    callback = callback_class(probe=probe if probe == "train" else Probe(nets.vectors(), probe))
    nets.fit(tmp_path, [callback], logger=CSVLogger(tmp_path))
    layers = ["input", "2", "6"]  # the nonlinearities of `nets.mlp`, whose modules are torch's own
    names = filled_in(keys, probe, [f"net.{n}" for n in layers[1:]])
    names |= filled_in(keys, probe, ["input"])
    for measurement in callback.history:
        assert set(measurement.values) == names
    logged = {key for key in records.csv_rows(tmp_path)[0] if key}
    assert {key for key in logged if "/" in key} == names


def test_the_layers_are_logged_in_depth_and_the_input_first(tmp_path):
    callback = EquiSeparation()
    nets.fit(tmp_path, [callback])
    keys = [key for key in callback.history[0].values if key.startswith("separation_layers/")]
    assert [key.split("/")[-1] for key in keys] == ["input", "net.2", "net.6"]


@pytest.mark.parametrize("monitor", ["nc/train/nc1", "nc/train/nc4", "separation/train/rho"])
def test_early_stopping_can_watch_a_quantity(monitor, tmp_path):
    stopping = EarlyStopping(monitor, patience=1, min_delta=1e9)  # nothing improves by so much
    nets.fit(tmp_path, [EquiSeparation(), NeuralCollapse(), stopping], max_epochs=10)
    assert stopping.stopped_epoch == 1
    assert math.isfinite(stopping.best_score)


def test_a_checkpoint_can_be_chosen_by_a_quantity(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="separation/train/rho", save_top_k=1, filename="best")
    callback = EquiSeparation()
    run = nets.fit(tmp_path, [callback, best], enable_checkpointing=True, max_epochs=4)
    rho = {m.epochs_completed: m.values["separation/train/rho"] for m in callback.history[1:]}
    assert float(best.best_model_score) == pytest.approx(min(rho.values()), rel=1e-6)
    epoch = torch.load(best.best_model_path, weights_only=True)["epoch"]
    assert epoch + 1 == min(rho, key=rho.get)
    assert all(torch.isfinite(value).all() for value in run.callback_metrics.values())


def test_what_two_classes_leave_undefined_is_logged_as_nan_with_one_warning(tmp_path):
    data = nets.vectors((15, 12))
    callback = NeuralCollapse(probe=Probe(data, "two"), figures=True)
    with nets.our_warnings() as ours:
        run = nets.fit(
            tmp_path, [callback], data=data, net=nets.mlp(K=2), logger=CSVLogger(tmp_path)
        )
    assert len(ours) == 1
    undefined = [k for k, v in callback.history[0].values.items() if math.isnan(v)]
    assert "nc/two/nc2_equinorm_means" in undefined
    assert all(key.split("/")[-1] in ours[0] for key in undefined)
    assert not set(undefined) & set(run.callback_metrics)
    assert "nc/two/nc1" in run.callback_metrics
    rows = [row for row in records.csv_rows(tmp_path) if row["nc/two/nc1"]]
    assert all(row[key] == "nan" for row in rows for key in undefined)


def test_a_value_that_becomes_nan_leaves_its_last_finite_one_to_monitors(tmp_path):
    callback = NeuralCollapse()

    def vanish(evaluation):
        if callback.history:
            evaluation.values["nc1"] = math.nan
        return evaluation

    nets.through(callback, "evaluate", vanish)
    run = nets.fit(tmp_path, [callback, EarlyStopping("nc/train/nc1", patience=9)], max_epochs=3)
    first, *later = [m.values["nc/train/nc1"] for m in callback.history]
    assert all(map(math.isnan, later))
    assert len(later) == 3
    assert float(run.callback_metrics["nc/train/nc1"]) == pytest.approx(first)


def test_failures_are_logged(tmp_path):
    callback = NeuralCollapse(probe=Probe(nets.Broken(), "broken"))
    with pytest.warns(RuntimeWarning, match="skipped"):
        run = nets.fit(tmp_path, [callback], logger=CSVLogger(tmp_path))
    rows = [row for row in records.csv_rows(tmp_path) if row["nc/broken/failures"]]
    assert [float(row["nc/broken/failures"]) for row in rows] == [1, 2, 3]
    assert float(run.callback_metrics["nc/broken/failures"]) == 3


def test_setup_says_when_a_monitor_would_look_before_there_is_a_value(tmp_path):
    callbacks = [NeuralCollapse(epochs=[2], figures=False), EarlyStopping("nc/train/nc1")]
    run = nets.trainer(tmp_path, callbacks)
    with pytest.warns(RuntimeWarning, match="strict"):
        callbacks[0].setup(run, nets.Classifier(), "fit")


def test_monitors_have_their_values_again_after_resuming(tmp_path):
    seen = []

    class Look(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append(dict(trainer.callback_metrics))

    rare = [NeuralCollapse(every_n_epochs=10, figures=False), Look()]
    nets.fit(tmp_path, rare, enable_checkpointing=True)
    resumed = [NeuralCollapse(every_n_epochs=10, figures=False), Look()]
    seen.clear()
    checkpoint = {"ckpt_path": next(tmp_path.rglob("*.ckpt"))}
    nets.fit(tmp_path, resumed, max_epochs=4, fit_options=checkpoint)
    assert float(seen[0]["nc/train/nc1"]) > 0


class OverTokens(nn.Module):
    def forward(self, h):
        return h.mean(1)


def test_how_layers_are_pooled_is_said_once_in_a_run_if_it_is_no_flattening(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    layers = [nn.Unflatten(1, (2, 3)), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh()]
    said = []
    for net in (nets.mlp(), nn.Sequential(*layers, OverTokens(), nn.Linear(4, 3))):
        callback = EquiSeparation(figures=False)
        run = nets.trainer(tmp_path, [callback], max_epochs=1)
        run.fit(nets.Classifier(net, freeze=0), DataLoader(nets.vectors(), 10))
        assert len(callback.history) == 2
        said.append([r.getMessage() for r in caplog.records if "pooled" in r.getMessage()])
        caplog.clear()
    assert said == [
        [],
        [
            "EquiSeparation on 'train': layers are pooled by their shapes (net.2, net.4: mean over "
            "tokens); pool= changes that."
        ],
    ]
