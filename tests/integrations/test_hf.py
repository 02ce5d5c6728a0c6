"""A real Trainer of Transformers with our callbacks: the same training, the same keys."""

import math
import os

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from lightning_nc import EquiSeparation, LocalElasticity, NeuralCollapse, Probe, measure  # noqa: E402
from lightning_nc.integrations.hf import GeometryCallback  # noqa: E402
from tests import nets  # noqa: E402
from tests.processes import run_processes  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Sentences(Dataset):
    """Tokens that depend on the class."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        tokens = torch.randint(0, 9, (4,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens + 9 * (index % 3), "labels": index % 3}


def trainer_of(folder, **options):
    transformers.set_seed(0)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    configuration = transformers.BertConfig(
        vocab_size=30, num_hidden_layers=2, max_position_embeddings=4, num_labels=3, **sizes
    )
    arguments = transformers.TrainingArguments(
        str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        logging_strategy="epoch",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
        learning_rate=1e-2,
        **options,
    )
    return transformers.Trainer(
        transformers.BertForSequenceClassification(configuration),
        arguments,
        train_dataset=Sentences(),
        eval_dataset=Sentences(),
    )


def of_trainer(trainer):
    """What the Trainer itself has logged, but for times."""
    rows = [row for row in trainer.state.log_history if not any("/" in key for key in row)]
    return [
        {k: v for k, v in row.items() if "runtime" not in k and "second" not in k} for row in rows
    ]


def ours(trainer):
    """The rows that hold our values."""
    return [row for row in trainer.state.log_history if any("/" in key for key in row)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A Trainer without our callbacks, one with them, and these."""
    used = [EquiSeparation(), NeuralCollapse(), LocalElasticity(probe="val", epochs=[0, 2])]
    without, trainer = (trainer_of(tmp_path_factory.mktemp("run")) for _ in range(2))
    trainer_state = torch.get_rng_state()
    without.train()
    torch.set_rng_state(trainer_state)
    trainer.add_callback(GeometryCallback(trainer, used))
    trainer.train()
    return without, trainer, used


def test_training_and_its_log_are_the_same_bit_by_bit(runs):
    without, trainer, _ = runs
    expected, found = without.model.state_dict(), trainer.model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert of_trainer(trainer) == of_trainer(without)
    assert len(of_trainer(without)) == 3  # the loss of each epoch, and the summary


def test_the_log_has_every_value_of_each_measurement_under_the_keys_of_lightning(runs):
    _, trainer, used = runs
    rows = ours(trainer)
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 0), (1, 3), (2, 6)]
    for callback in used:
        for measurement in callback.history:
            (row,) = (r for r in rows if r["epoch"] == measurement.epochs_completed)
            assert {key: row[key] for key in measurement.values} == pytest.approx(
                measurement.values, nan_ok=True
            )
    assert [len(callback.history) for callback in used] == [3, 3, 2]
    assert {"nc/train/nc1", "nc/train/seconds", "separation/train/rho"} <= set(rows[0])
    assert "elasticity/val/relative_ratio" in rows[0]
    assert "elasticity/val/relative_ratio" not in rows[1]


def test_no_measurement_leaves_a_loader_with_accelerate(runs):
    without, trainer, (*_, elasticity) = runs
    assert len(elasticity.history) == 2  # of validation data
    assert len(trainer.accelerator._dataloaders) == len(without.accelerator._dataloaders) + 1


def test_the_values_are_those_of_measure(runs):
    _, trainer, (_, collapse, _) = runs
    loader = DataLoader(Sentences(), 8, collate_fn=trainer.data_collator)
    expected = measure(trainer.model, Probe(loader, "train"), measures=[NeuralCollapse()]).values
    assert {key: collapse.history[-1].values[key] for key in expected} == pytest.approx(
        expected, rel=1e-6, nan_ok=True
    )
    assert collapse.plot("cosines") is not None


def test_what_cannot_be_measured_costs_one_warning_and_no_training(tmp_path):
    used = [NeuralCollapse(probe="test"), EquiSeparation(layers=["nowhere"]), NeuralCollapse()]
    trainer = trainer_of(tmp_path)
    trainer.add_callback(GeometryCallback(trainer, used))
    with nets.our_warnings() as told:
        trainer.train()
    assert len([text for text in told if "nowhere" in text]) == 2  # with its count at the end
    assert [callback.failures for callback in used] == [0, 3, 0]
    assert [row["separation/train/failures"] for row in ours(trainer)] == [1, 2, 3]
    assert math.isfinite(ours(trainer)[-1]["nc/train/nc1"])


def test_a_log_that_fails_costs_a_warning_and_no_training(tmp_path, monkeypatch):
    class Refusing(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **given):
            if "nc/train/nc1" in logs:
                raise ConnectionError("the server is gone")

    trainer, used = trainer_of(tmp_path), [NeuralCollapse()]
    trainer.add_callback(GeometryCallback(trainer, used))
    trainer.add_callback(Refusing())
    with pytest.warns(RuntimeWarning, match=r"Could not log by the Trainer: .*server is gone"):
        trainer.train()
    assert len(used[0].history) == 3
    assert len(of_trainer(trainer)) == 3


def test_callbacks_of_others_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"such as \[NeuralCollapse\(\)\], got"):
        GeometryCallback(None, [transformers.TrainerCallback()])


def in_two_processes(rank, world, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577"}
    weights, rows = [], []
    for used in ([], [NeuralCollapse(), EquiSeparation()]):
        trainer = trainer_of(folder, ddp_backend="gloo")
        trainer.add_callback(GeometryCallback(trainer, used))
        trainer.train()
        weights.append(dict(trainer.model.state_dict()))
        rows.append(ours(trainer))
    same = all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    return (
        same,
        trainer.accelerator.num_processes,
        len(rows[1]),
        float(weights[0]["classifier.bias"].sum()),
    )


@pytest.mark.slow
def test_of_two_processes_the_first_measures_and_training_is_the_same(tmp_path):
    found = run_processes(in_two_processes, 2, tmp_path)
    assert [each[:3] for each in found] == [(True, 2, 3), (True, 2, 0)]
    assert found[0][3] == found[1][3]
