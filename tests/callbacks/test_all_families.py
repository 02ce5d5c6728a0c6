"""All families in one line: what applies is measured, and what does not is said once."""

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import lightning_nc
from lightning_nc import Probe, callbacks_for
from tests import nets
from tests.callbacks.runs import epochs

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

DATA = nets.vectors()
IMBALANCED = (40, 36, 6, 5)
KINDS = [
    *(lightning_nc.EquiSeparation, lightning_nc.NeuralCollapse),
    *(lightning_nc.MinorityCollapse, lightning_nc.LocalElasticity),
]


@pytest.fixture
def log(caplog):
    """What is said in Lightning's log."""
    caplog.set_level(logging.INFO)
    return lambda: [r.getMessage() for r in caplog.records if " on '" in r.getMessage()]


def test_every_family_that_applies_is_measured(tmp_path):
    callbacks = callbacks_for("train", every_n_epochs=2, figures=False)
    assert [type(each) for each in callbacks] == KINDS
    nets.fit(tmp_path, callbacks, nets.vectors(IMBALANCED), nets.mlp(K=4), max_epochs=3)
    assert [epochs(each) for each in callbacks] == [[0, 2, 3]] * 3 + [[0, 3]]
    assert [each.failures for each in callbacks] == [0] * 4
    assert "minority/train/cos_weights" in callbacks[2].history[-1].values


def test_values_are_those_of_callbacks_given_one_by_one(tmp_path):
    def quantities(callbacks):
        return [
            {key: v for key, v in m.values.items() if not key.endswith("seconds")}
            for each in callbacks
            for m in each.history
        ]

    given = [kind(epochs=[0, 2], figures=False) for kind in KINDS]
    together = callbacks_for(epochs=[0, 2], figures=False)
    for callbacks in (given, together):
        torch.manual_seed(3)
        nets.fit(tmp_path, callbacks, nets.vectors(IMBALANCED), nets.mlp(K=4))
    assert str(quantities(together)) == str(quantities(given))  # NaN is NaN, too


def test_local_elasticity_is_measured_one_time_in_ten():
    *_, elasticity = callbacks_for(every_n_epochs=5)
    due = [n for n in range(124) if elasticity.schedule.due(n, last_epoch=123)]
    assert due == [0, 50, 100, 123]
    *others, elasticity = callbacks_for(epochs=[3, 0, *range(4, 24), 3])
    assert elasticity.schedule.epochs == (0, 12, 22, 23)
    assert {each.schedule.epochs[0] for each in others} == {3}


def test_arguments_reach_every_callback():
    probe = Probe(nets.vectors(), "mine", batch_norm="batch", samples_per_class=7)
    options = {"when": "validation_end", "figures": False, "on_error": "raise"}
    callbacks = callbacks_for(probe, **options)
    for each in callbacks:
        record = each.record
        assert (record.schedule.when, record.figures, record.on_error) == tuple(options.values())
        assert (record.probe.key, record.probe.samples_per_class) == ("mine", 7)
    assert [each.probe.batch_norm for each in callbacks] == ["batch"] * 3 + ["eval"]
    assert callbacks[0].probe is probe
    for wrong in ({"epochs": 3}, {"epochs": [1.5]}, {"every_n_epochs": 0}, {"probe": DATA}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            callbacks_for(**wrong)


def test_families_can_be_left_out():
    left = callbacks_for(without=["elasticity", "nc"])
    assert [each.family for each in left] == ["separation", "minority"]
    for wrong in ("elasticity", ["LocalElasticity"]):
        with pytest.raises(ValueError, match=r"must list some of 'separation', 'nc'.* got"):
            callbacks_for(without=wrong)


class Encoder(nets.Classifier):
    """A network without a head, trained by distances to the means of a batch."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3), nn.ReLU()))

    def loss_of(self, batch):
        return self(batch[0]).square().mean()


@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_without_a_head_minority_collapse_says_so_once(on_error, tmp_path, log):
    callbacks = callbacks_for(figures=False, on_error=on_error)
    run = nets.trainer(tmp_path, callbacks, max_epochs=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        run.fit(Encoder(), DataLoader(nets.vectors(IMBALANCED, seed=3), 10))
    separation, collapse, minority, elasticity = callbacks
    assert len(separation.history) == len(collapse.history) == 5
    assert len(elasticity.history) == 2
    assert (minority.history, minority.failures) == ([], 0)
    assert not any(key.startswith("minority/") for key in run.callback_metrics)
    said = [text for text in log() if text.startswith("MinorityCollapse")]
    assert len(said) == 1
    assert "on 'train' does not apply and logs nothing: Found no head" in said[0]


def test_a_callback_that_is_asked_for_still_warns(tmp_path):
    callback = lightning_nc.MinorityCollapse(epochs=[0], figures=False)
    run = nets.trainer(tmp_path, [callback], max_epochs=1)
    with pytest.warns(RuntimeWarning, match="skipped the measurement .* Found no head"):
        run.fit(Encoder(), DataLoader(nets.vectors(IMBALANCED), 10))


def test_balanced_data_have_no_minority_and_no_warning(tmp_path, log):
    callbacks = callbacks_for(figures=False)
    run = nets.fit(tmp_path, callbacks, nets.vectors((12, 12, 12)))
    assert [each.failures for each in callbacks] == [0] * 4
    assert "minority/train/cos_weights" not in run.callback_metrics
    said = [text for text in log() if "no minority classes" in text]
    assert len(said) == 1


class Tagger(nn.Module):
    """A class for each position of a sequence of vectors."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x)).mT  # (B, K, T), as cross-entropy takes it


def test_labels_of_positions_have_no_gradients_of_samples(tmp_path, log):
    labels = torch.randint(3, (20, 5), generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(torch.randn(20, 5, 6), labels)
    callbacks = callbacks_for(figures=False, on_error="raise", epochs=range(12))
    nets.fit(tmp_path, callbacks, data, Tagger(), max_epochs=11)
    *others, elasticity = callbacks
    assert [len(each.history) for each in others] == [12] * 3
    assert (elasticity.history, elasticity.failures) == ([], 0)
    said = [text for text in log() if text.startswith("LocalElasticity")]
    assert len(said) == 1
    assert "labels are of positions" in said[0]


class OfBags(nn.Module):
    """Classifies bags of instances, as in multiple-instance learning."""

    def __init__(self):
        super().__init__()
        self.instances, self.head = nn.Sequential(nn.Linear(6, 12), nn.Tanh()), nn.Linear(12, 3)

    def forward(self, bags):
        return self.head(self.instances(bags).mean(1))


def test_bags_of_several_sizes_have_no_batch_in_which_gradients_are_compared(tmp_path, log):
    data = [(torch.randn(2 + n % 4, 6), n % 3) for n in range(24)]
    callbacks = callbacks_for(figures=False, on_error="raise")
    nets.fit(tmp_path, callbacks, data, OfBags(), batch_size=1)
    assert [len(each.history) for each in callbacks] == [3, 3, 3, 0]
    (said,) = (text for text in log() if text.startswith("LocalElasticity"))
    assert "these vary in size" in said
    assert callbacks[-1].failures == 0


def test_sharded_parameters_leave_local_elasticity_out(tmp_path, log, monkeypatch):
    monkeypatch.setattr("lightning_nc.callbacks.strategies.SHARDING", ("SingleDeviceStrategy",))
    callbacks = callbacks_for(figures=False)
    nets.fit(tmp_path, callbacks)
    assert [len(each.history) for each in callbacks] == [3, 3, 3, 0]
    said = [text for text in log() if text.startswith("LocalElasticity")]
    assert len(said) == 1
    assert "cannot compare gradients under SingleDeviceStrategy" in said[0]
    with pytest.raises(ValueError, match="cannot compare gradients"):
        nets.fit(tmp_path, [lightning_nc.LocalElasticity()])


def test_a_fault_is_still_a_warning_and_counts(tmp_path):
    callbacks = callbacks_for(Probe(nets.Broken(), "broken"), epochs=[0])
    with pytest.warns(RuntimeWarning, match="the disk is gone"):
        nets.fit(tmp_path, callbacks, max_epochs=1)
    assert [each.failures for each in callbacks] == [1] * 4
