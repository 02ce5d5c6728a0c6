"""What `MinorityCollapse` says the layer-peeled model predicts, and when it says nothing."""

import importlib.util
import itertools
import math
import warnings

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from lightning_nc import MinorityCollapse, Probe
from lightning_nc.measures import layer_peeled_prediction
from lightning_nc.theory import critical_imbalance, layer_peeled_model
from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

COUNTS = (24, 24, 8, 8)


def fit(folder, callbacks, counts=COUNTS, **options):
    data = nets.vectors(counts)
    torch.manual_seed(3)
    return nets.fit(folder, callbacks, data=data, net=nets.mlp(K=len(counts)), **options)


def last(callback):
    return {key.split("/")[-1]: value for key, value in callback.history[-1].values.items()}


def test_predictions_are_those_of_the_model_for_what_was_measured(tmp_path):
    callback = MinorityCollapse(theory=True, figures=False)
    fit(tmp_path, [callback])
    assert len(callback.history) == 3
    values = last(callback)
    energies = values["energy_weights"], values["energy_features"]
    solution = layer_peeled_model(COUNTS, *energies)
    assert values["predicted_cos"] == pytest.approx(solution.mean_cosine_w([2, 3]), rel=1e-6)
    assert values["critical_ratio"] == pytest.approx(critical_imbalance(2, 2, *energies), rel=1e-4)
    assert (values["imbalance_ratio"] >= values["critical_ratio"]) == (
        values["predicted_cos"] > 1 - 1e-6
    )


def test_without_theory_nothing_is_predicted(tmp_path):
    callback = MinorityCollapse(figures=False)
    fit(tmp_path, [callback])
    assert not {"predicted_cos", "critical_ratio"} & last(callback).keys()


def test_the_same_question_is_not_solved_twice(monkeypatch):
    solved = []
    solve = layer_peeled_prediction.layer_peeled_model
    monkeypatch.setattr(
        layer_peeled_prediction, "layer_peeled_model", lambda *a: solved.append(a) or solve(*a)
    )
    predictions = layer_peeled_prediction.Predictions()
    n, minority = torch.tensor(COUNTS), torch.tensor([2, 3])
    answers = [predictions.of(n, minority, 1.0, energy) for energy in (5.0, 5.0, 6.0)]
    assert len(solved) == 2
    assert answers[0] == answers[1] != answers[2]


def test_a_prediction_that_is_not_certified_is_nan_and_one_warning_says_why(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("the duality gap is 0.1")

    monkeypatch.setattr(layer_peeled_prediction, "layer_peeled_model", refuse)
    callback = MinorityCollapse(theory=True, figures=False)
    with pytest.warns(RuntimeWarning, match="the duality gap is 0.1") as told:
        fit(tmp_path, [callback])
    assert len([w for w in told if w.category is RuntimeWarning]) == 1
    assert math.isnan(last(callback)["predicted_cos"])
    assert last(callback)["cos_weights"] <= 1
    assert callback.failures == 0


def test_there_is_no_model_of_classes_without_samples(tmp_path):
    callback = MinorityCollapse(
        theory=True, probe=Probe(nets.vectors((9, 9, 9, 9)), "all"), figures=False
    )
    module = nets.Classifier(nets.mlp(K=4), freeze=0)
    run = nets.trainer(tmp_path, [callback])
    with pytest.warns(RuntimeWarning, match="a class has no training samples"):
        run.fit(module, DataLoader(nets.vectors((24, 24)), 8))
    assert last(callback)["imbalance_ratio"] == math.inf
    assert math.isnan(last(callback)["predicted_cos"])


def test_theory_without_its_solver_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "cvxpy" else find(name)
    )
    with pytest.raises(ImportError, match=r"lightning-neural-collapse\[theory\]"):
        MinorityCollapse(theory=True)


def test_the_curve_of_the_model_is_drawn_with_the_measured_point(tmp_path):
    callback = MinorityCollapse(theory=True, epochs=[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit(tmp_path, [callback], logger=CSVLogger(tmp_path))
    (drawn,) = (tmp_path / "lightning_logs").rglob("minority/train/theory/*.png")
    assert drawn.stat().st_size > 5_000


def test_the_curve_starts_at_a_simplex_and_rises_to_one():
    ratios, cosines = layer_peeled_prediction.predicted_curve(5, 5, 1.0, 5.0, up_to=100)
    assert ratios[0] == 1
    assert ratios[-1] == pytest.approx(100)
    assert cosines[0] == pytest.approx(-1 / 9, abs=1e-6)
    assert all(b > a - 1e-9 for a, b in itertools.pairwise(cosines))
    assert cosines[-1] == pytest.approx(1)


def test_training_with_theory_is_the_same_bit_by_bit(tmp_path):
    plain = fit(tmp_path, []).lightning_module.state_dict()
    measured = fit(tmp_path, [MinorityCollapse(theory=True)]).lightning_module.state_dict()
    assert nets.same(plain, measured)


def test_theory_without_minority_classes_is_said_to_have_no_prediction_and_no_figure(tmp_path):
    callback = MinorityCollapse(theory=True, figures=False)
    with pytest.warns(RuntimeWarning, match=r"predicted_cos.*critical_ratio.* are not logged"):
        fit(tmp_path, [callback], (16, 16, 16, 16))
    with pytest.raises(ValueError, match=r"no figure 'theory' here, since .* not measured"):
        callback.plot("theory")
    with pytest.raises(ValueError, match="no figure 'typo'; choose"):
        callback.plot("typo")
