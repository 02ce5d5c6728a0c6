"""Callbacks with equal probes share one pass over the data."""

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from pytorch_lightning import Callback

from lightning_nc import EquiSeparation, NeuralCollapse, Probe
from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def samples_seen(callbacks, tmp_path):
    """How many samples pass through the network for a second measurement, and the callbacks."""
    torch.manual_seed(2)
    net = nets.mlp()
    evaluated, counts = [], []

    def count(net, args):
        if not net.training:
            evaluated.append(len(args[0]))

    class Reader(Callback):
        def on_train_epoch_start(self, *_):
            counts.append(sum(evaluated))

    net.register_forward_pre_hook(count)
    nets.fit(tmp_path, [*callbacks, Reader()], net=net, num_sanity_val_steps=0, max_epochs=3)
    return counts[2] - counts[1] - 30  # less one validation of 30 samples


def pair(first=None, second=None):
    first, second = first or Probe(), second or Probe()
    return EquiSeparation(probe=first, figures=False), NeuralCollapse(probe=second, figures=False)


def test_equal_probes_share_one_pass(tmp_path):
    assert samples_seen(pair()[:1], tmp_path) == 30
    assert samples_seen(pair(), tmp_path) == 30


def test_layers_cost_neural_collapse_no_pass_of_its_own(tmp_path):
    law, alone = EquiSeparation(figures=False), NeuralCollapse(layers="blocks", figures=False)
    assert samples_seen([law, alone], tmp_path) == 30
    assert samples_seen([NeuralCollapse(layers="blocks", figures=False)], tmp_path) == 30
    with_law = alone.history[-1].values
    layers = {key.split("/", 2)[2] for key in law.history[-1].values if "_layers/" in key}
    of_layers = {key.split("/", 2)[2] for key in with_law if "_layers/" in key}
    assert of_layers == {f"{layer}/{name}" for layer in layers for name in ("nc1", "cdnv", "nc4")}


@pytest.mark.parametrize("head", [None, False])
def test_layers_are_measured_in_turn_as_together(head, tmp_path):
    probes = Probe(), Probe(memory_mb=0.0015)  # layers of width 12, 10, 6
    together, apart = (NeuralCollapse(head, "blocks", probe=p, figures=False) for p in probes)
    for callback in (together, apart):
        nets.fit(tmp_path, [callback])
    for one, other in zip(together.history, apart.history, strict=True):
        of_layers = [key for key in one.values if key.startswith("nc_layers/")]
        assert len(of_layers) % (2 if head is False else 3) == 0 < len(of_layers)
        assert [key.endswith("/nc4") for key in of_layers].count(True) == (
            0 if head is False else len(of_layers) / 3
        )
        for key in of_layers:
            assert other.values[key] == pytest.approx(one.values[key], rel=1e-12)


@pytest.mark.parametrize(
    "other", [Probe(batch_norm="batch"), Probe(seed=1), Probe(samples_per_class=50)]
)
def test_different_probes_do_not(other, tmp_path):
    assert samples_seen(pair(second=other), tmp_path) == 60


def test_features_over_the_cache_budget_cost_a_second_pass(tmp_path):
    probe = Probe(cache_mb=0)
    assert samples_seen(pair(probe, probe), tmp_path) == 60


def test_layers_over_the_memory_budget_are_measured_in_turn(tmp_path):
    tight = Probe(memory_mb=0.001)  # layers of width 12, 10, 6 do not fit together
    together, apart = pair()[0], pair(tight)[0]
    assert samples_seen([together], tmp_path) == 30
    assert samples_seen([apart], tmp_path) == 90
    for one, other in zip(together.history, apart.history, strict=True):
        for key in one.values:
            assert key.endswith("seconds") or other.values[key] == pytest.approx(
                one.values[key], rel=1e-12
            )


def test_sharing_changes_no_value(tmp_path):
    shared, alone = pair(), pair()
    nets.fit(tmp_path, shared)
    for callback in alone:
        nets.fit(tmp_path, [callback])
    for one, other in zip(shared, alone, strict=True):
        for a, b in zip(one.history, other.history, strict=True):
            assert {k: v for k, v in a.values.items() if not k.endswith("seconds")} == {
                k: v for k, v in b.values.items() if not k.endswith("seconds")
            }


def test_callbacks_share_when_both_are_due_and_go_alone_when_not(tmp_path):
    often = EquiSeparation(figures=False)
    seldom = NeuralCollapse(figures=False, every_n_epochs=2)
    late = NeuralCollapse(probe=Probe(name="late"), figures=False, when="validation_end")
    nets.fit(tmp_path, [seldom, often, late], max_epochs=3)
    assert [m.epochs_completed for m in often.history] == [0, 1, 2, 3]
    assert [m.epochs_completed for m in seldom.history] == [0, 2, 3]
    assert [m.epochs_completed for m in late.history] == [0, 1, 2, 3]


def test_the_strictest_on_error_of_those_who_share_holds(tmp_path):
    probe = Probe(nets.Broken(), "broken")
    lenient = EquiSeparation(probe=probe)
    strict = NeuralCollapse(probe=probe, on_error="raise")
    with pytest.raises(OSError, match="the disk is gone"):
        nets.fit(tmp_path, [lenient, strict])
    assert lenient.failures == strict.failures == 1


def test_two_callbacks_that_would_log_the_same_keys_are_refused(tmp_path):
    class Mine(NeuralCollapse):
        """Of the same family."""

    with pytest.raises(ValueError, match=r"2 callbacks would log the keys nc/train/"):
        nets.fit(tmp_path, [NeuralCollapse(), Mine()])


@pytest.mark.parametrize("kind", nets.CALLBACKS)
@pytest.mark.parametrize("trainer", [lightning.pytorch.Trainer, pytorch_lightning.Trainer])
def test_two_of_one_class_are_refused_when_the_trainer_is_made(kind, trainer):
    refused = rf"{kind.__name__}|/val/"  # by Lightning, which names the class
    with pytest.raises((ValueError, RuntimeError), match=refused):
        trainer(callbacks=[kind(probe="val"), kind(probe=Probe("val", seed=1))], logger=False)
    trainer(callbacks=[kind(probe="val"), kind(probe=Probe("val", name="other"))], logger=False)


def test_two_instances_on_probes_of_different_names_are_welcome(tmp_path):
    probes = Probe(name="a"), Probe(name="b", batch_norm="batch")
    callbacks = [NeuralCollapse(probe=probe, figures=False) for probe in probes]
    run = nets.fit(tmp_path, callbacks)
    assert {"nc/a/nc1", "nc/b/nc1"} <= set(run.callback_metrics)


def test_probes_on_lists_of_samples_can_be_compared(tmp_path):
    lists = [list(nets.vectors(seed=seed)) for seed in (1, 2)]
    callbacks = [
        NeuralCollapse(probe=Probe(samples, f"list{i}"), figures=False)
        for i, samples in enumerate(lists)
    ]
    nets.fit(tmp_path, callbacks)
    assert all(len(callback.history) == 3 for callback in callbacks)
