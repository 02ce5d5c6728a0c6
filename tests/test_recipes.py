"""Every recipe of the documents runs as it stands, and does what it says."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import lightning_nc
from lightning_nc import MeasureCallback
from lightning_nc.callbacks.yaml_list import callbacks_of
from lightning_nc.factory import VARIABLE
from tests import nets, reference
from tests.callbacks.scripts.cli import cli_of

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

TEXT = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()


def blocks(language, title):
    """The code blocks under a heading, up to the next."""
    section = re.split(rf"^#+ {re.escape(title)}$", TEXT, flags=re.MULTILINE)
    assert len(section) == 2, f"{title} is no heading, or several"
    own = re.split(r"^##+ ", section[1], flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", own, re.MULTILINE | re.DOTALL)


def run(title, folder):
    """Execute the blocks of a recipe in a folder of their own, after the one at the top."""
    names = {}
    os.chdir(folder)
    torch.manual_seed(0)
    for code in blocks("python", "Recipes") + blocks("python", title):
        exec(compile(code, title, "exec"), names)
    return names


@pytest.fixture
def run_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # also gives the folder back afterwards
    return lambda title: run(title, tmp_path)


def epochs(callback):
    return [measurement.epochs_completed for measurement in callback.history]


def ours(trainer):
    return [each for each in trainer.callbacks if isinstance(each, MeasureCallback)]


def test_what_would_be_measured_is_said_before_training(run_recipe, capsys):
    names = run_recipe("Before training")
    found = names["found"]
    assert (found.head, found.layers) == ("net.6", ["input", "net.1", "net.3", "net.5"])
    assert "10 samples each" in capsys.readouterr().out
    assert [epochs(callback) for callback in ours(names["trainer"])] == [[0, 5]] * 4


def test_training_stops_when_the_law_holds(run_recipe):
    names = run_recipe("the law of equi-separation holds")
    trainer, law = names["trainer"], names["law"]
    found = [
        (m.values["separation/train/pearson_r"], m.values["separation/train/rho"])
        for m in ours(trainer)[0].history
    ]
    holds = [r < law.r and rho < law.rho for r, rho in found]
    assert 1 <= trainer.current_epoch < 50
    assert holds[-1]
    assert not any(holds[:-1])
    assert any(r < law.r for r, _ in found[:-1])  # r alone would have stopped it before


def test_runs_of_several_seeds_are_compared(run_recipe):
    names = run_recipe("Seeds, with error bars")
    runs = [law.history_frame() for law in names["laws"]]
    last = [run["separation/train/rho"].iloc[-1] for run in runs]
    assert len({*last}) == 3
    assert (names["epochs"], names["rho"][:, -1].tolist()) == ([0, 1, 2, 3], last)
    layers = [key for key in runs[0] if key.startswith("separation_layers/")]
    np.testing.assert_array_equal(names["D"], [run[layers].iloc[-1] for run in runs])
    for law, D in zip(names["laws"], names["D"], strict=True):
        by_class = law.history[-1].arrays["class_fuzziness"]
        assert by_class.shape == (len(layers), 4)
        np.testing.assert_allclose(by_class.mean(1), D, rtol=1e-12)  # classes are balanced


def test_the_history_of_a_finished_run_is_in_its_checkpoint(run_recipe, tmp_path):
    names = run_recipe("A run of yesterday")
    (measured,) = ours(names["trainer"])
    assert names["callback"].history == measured.history
    assert epochs(names["callback"]) == [0, 1, 2, 3]
    assert (tmp_path / "law.pdf").exists()


def test_training_stops_when_features_have_collapsed(run_recipe):
    names = run_recipe("features have collapsed")
    trainer, threshold = names["trainer"], names["collapse"].stopping_threshold
    nc1 = [m.values["nc/train/nc1"] for m in ours(trainer)[0].history]
    assert 1 <= trainer.current_epoch < 50
    assert nc1[-1] < threshold < min(nc1[1:-1])


def test_the_checkpoint_that_separates_best_is_kept(run_recipe):
    names = run_recipe("Keep the checkpoint that separates best")
    rho = [m.values["separation/train/rho"] for m in ours(names["trainer"])[0].history[1:]]
    assert float(names["best"].best_model_score) == min(rho)
    kept = torch.load(names["best"].best_model_path, weights_only=True)
    assert kept["epoch"] == rho.index(min(rho))


def test_chosen_epochs_are_measured(run_recipe):
    names = run_recipe("every tenth epoch, or chosen ones")
    assert epochs(names["every_tenth"]) == [0, 10, 20]
    assert epochs(names["chosen"]) == [0, 1, 5, 20]


def test_epochs_are_even_on_a_logarithmic_scale(run_recipe):
    names = run_recipe("evenly on a logarithmic scale")
    stated = re.search(r"# (0, [\d, ]+)", TEXT).group(1)
    assert epochs(names["callback"]) == [int(epoch) for epoch in stated.split(",")]


def test_data_of_your_own_are_measured(run_recipe):
    (callback,) = ours(run_recipe("Your own data")["trainer"])
    assert callback.history[-1].counts.tolist() == [20] * 4


def test_a_language_model_is_measured(run_recipe):
    law, collapse = ours(run_recipe("A language model")["trainer"])
    assert epochs(law) == epochs(collapse) == [0, 1, 2, 3, 4, 5]
    assert int(law.history[-1].counts.sum()) == 64 * 11
    assert 0 < law.history[-1].values["next_token/train/total"] < 2


def test_checkpoints_are_measured_afterwards(run_recipe):
    names = run_recipe("Measure checkpoints afterwards")
    (validated,) = names["callback"].history
    # the best of checkpoints that monitor nothing is the last
    batches = len(names["train_loader"])
    assert (validated.stage, validated.epochs_completed) == ("validate", 6)
    assert validated.step == 6 * batches
    frame = names["frame"]
    assert frame["epochs_completed"].tolist() == [2, 4, 6]
    assert frame["nc/data/nc1"].nunique() == 3  # each has weights of its own


@pytest.mark.parametrize(
    "title",
    [
        "The module has no forward",
        "Batches are more than inputs and labels",
        "Training mixes its samples",
        "Labels are no class indices",
    ],
)
def test_what_fails_at_first_is_mended_by_the_line_that_is_given(run_recipe, title):
    names = run_recipe(title)
    callbacks = ours(names["trainer"])
    assert [epochs(callback) for callback in callbacks] == [[0, 1]] * len(callbacks)
    # without that line nothing is measured
    module, loader = names["trainer"].model, names["trainer"].train_dataloader
    trainer = nets.trainer(os.getcwd(), [lightning_nc.NeuralCollapse()], max_epochs=1)
    with pytest.warns(RuntimeWarning, match="skipped|Found no head"):
        trainer.fit(module, loader)
    keys = {key for each in ours(trainer)[0].history for key in each.values}
    assert not any(key.endswith("/accuracy") for key in keys)


def test_layers_of_graphs_have_a_row_for_each_graph(run_recipe):
    names = run_recipe("Samples are graphs")
    law, collapse = ours(names["trainer"])
    assert epochs(law) == epochs(collapse) == [0, 1]
    model, batch = names["model"], names["collate"](names["data"])
    model.load_state_dict(names["trainer"].model.state_dict())
    with torch.no_grad():
        h = names["mean_of_graphs"](model.net[:4](batch.x), batch.batch)
    D = reference.separation_fuzziness(h.double().numpy(), batch.y.numpy())
    found = law.history[-1].values["separation_layers/train/net.3"]
    assert found == pytest.approx(D, rel=1e-5)


def test_of_an_ensemble_each_member_is_measured(run_recipe):
    names = run_recipe("Members of an ensemble are stacked")
    members = names["members"][:2]  # Lightning has added its own callbacks to the list
    assert [epochs(member) for member in members] == [[0, 1]] * 2
    one, other = (member.history[-1].values for member in members)
    assert one["nc/net/nc1"] != other["nc/other/nc1"]
    assert [epochs(callback) for callback in ours(names["trainer"])] == [[0, 1]] * 2


def test_several_devices_need_nothing_more(run_recipe):
    trainer = run_recipe("Several GPUs")["trainer"]
    assert [epochs(callback) for callback in ours(trainer)] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("namespace", nets.NAMESPACES)
def test_lightning_cli_reads_the_command_line_and_the_configuration(namespace, tmp_path):
    (command,) = blocks("sh", "LightningCLI")
    (configuration,) = blocks("yaml", "LightningCLI")
    path = tmp_path / "config.yaml"
    path.write_text(configuration)
    python, main, fit, *arguments = shlex.split(command.replace("\\\n", " "))
    assert (python, main, fit) == ("python", "main.py", "fit")
    for told in (arguments, [f"--config={path}"]):
        quiet = ["--trainer.accelerator=cpu", "--trainer.logger=false"]
        cli = cli_of(namespace, [*quiet, *told], run=False, save_config_callback=None)
        collapse, separation = ours(cli.trainer)
        assert collapse.schedule.every_n_epochs == 2
        assert collapse.probe == lightning_nc.Probe(samples_per_class=50)
        assert separation.probe.source == "val"


def test_the_environment_variable_and_its_file_are_as_described():
    title = "A program that you do not want to change"
    (command,) = blocks("sh", title)
    assert command.startswith(f"{VARIABLE}=callbacks.yaml ")
    (text,) = blocks("yaml", title)
    collapse, separation, summary = callbacks_of(text)
    assert isinstance(summary, lightning_nc.GeometrySummary)
    assert collapse.probe == lightning_nc.Probe(samples_per_class=50)
    assert separation.schedule.every_n_epochs == 10


def test_every_block_of_code_is_under_a_heading_that_is_tested():
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.M)
    found = [title for title in titles if blocks("(?:python|sh|yaml)", title)]
    tests = Path(__file__).read_text()
    assert [title for title in found if f'"{title}"' not in tests] == []
    assert len(re.findall("^```[a-z]", TEXT, re.M)) == sum(
        len(blocks("(?:python|sh|yaml)", title)) for title in titles
    )


def test_data_in_memory_are_measured_like_a_loader(run_recipe):
    names = run_recipe("Data in memory")
    expected = names["by_loader"]
    assert names["by_batches"] == pytest.approx(expected, rel=1e-5)
    assert names["by_arrays"] == pytest.approx(expected, rel=1e-5)
    families = {key.partition("/")[0] for key in names["everything"].values}
    assert families == {"separation", "separation_layers", "nc", "elasticity"}


def test_a_network_of_fabric_is_measured_between_epochs(run_recipe):
    values = run_recipe("Lightning Fabric")["values"]
    assert 0 < values["nc/train/nc1"] < 1


def test_the_trainer_of_transformers_logs_our_keys(run_recipe):
    pytest.importorskip("accelerate")
    names = run_recipe("Trainer of Hugging Face Transformers")
    rows = [row for row in names["trainer"].state.log_history if "nc/train/nc1" in row]
    assert [row["epoch"] for row in rows] == epochs(names["collapse"]) == [0, 1, 2]
    assert (
        rows[-1]["separation/train/rho"] == names["law"].history[-1].values["separation/train/rho"]
    )
