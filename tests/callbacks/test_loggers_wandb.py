"""What an offline run of W&B has on disk."""

import math

import pytest
import torch
from matplotlib.image import imread
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from lightning_nc import EquiSeparation, NeuralCollapse, Probe
from lightning_nc.loggers import tables
from tests import nets
from tests.callbacks import records

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = [0, 2, 5]
OTHERS = ("trainer/global_step", "*")  # of Lightning


def tables_of(callback):
    """The tables of the last measurement, by name."""
    return callback.measure.tables(callback.record.timeline())


def fit(folder, used, prefix="", **options):
    """Train, finish the run, and return what was warned of by this package."""
    logger = WandbLogger(save_dir=folder, offline=True, prefix=prefix)
    with nets.our_warnings() as told:
        nets.fit(folder, used, logger=logger, **options)
    logger.experiment.finish()
    return told


@pytest.fixture(scope="module")
def run(tmp_path_factory, offline):
    """The folder of a run, and its callbacks."""
    folder, used = tmp_path_factory.mktemp("run"), (EquiSeparation(), NeuralCollapse())
    assert fit(folder, used) == []
    return folder, used


def test_wandb_has_every_value_and_the_image_files(run):
    folder, used = run
    rows = records.wandb_history(folder)
    for callback in used:
        for key in callback.history[0].values:
            logged = {row["trainer/global_step"]: row[key] for row in rows if key in row}
            values = [m.values[key] for m in callback.history]
            assert logged == pytest.approx(dict(zip(STEPS, values, strict=True)), nan_ok=True), key
    tags = [tag for callback in used for tag in nets.drawings(callback)]
    at_end = [tag for callback in used for tag in nets.drawings_at_end(callback)]
    for tag in (*tags, *at_end):
        images = [row[tag] for row in rows if tag in row]
        assert len(images) == (1 if tag in at_end else len(STEPS))
        for image in images:
            (name,) = image["filenames"]
            (path,) = folder.rglob(name.split("/")[-1])
            assert imread(path).std() > 0.01


def test_wandb_has_the_film_of_the_collapse_as_a_video(run):
    folder, _ = run
    rows = [row for row in records.wandb_history(folder) if "nc/train/collapse" in row]
    (film,) = (row["nc/train/collapse"] for row in rows)
    assert rows[0]["trainer/global_step"] == STEPS[-1]
    assert film["_type"] == "videos"
    (video,) = film["videos"]
    (path,) = folder.rglob(video["path"].split("/")[-1])
    with Image.open(path) as opened:
        assert (opened.format, opened.n_frames) == ("GIF", len(STEPS))


def test_wandb_shows_our_values_over_epochs_and_others_over_steps(run):
    folder, used = run
    axes = records.wandb_axes(folder)
    expected = {"trainer/global_step": "", "*": "trainer/global_step"}
    for callback in used:
        axis = callback.record.prefix + "epochs_completed"
        expected |= dict.fromkeys(callback.history[0].values, axis) | {axis: ""}
    assert dict(axes) == expected
    assert len(axes) == len(expected)  # each is defined once
    logged = {key for row in records.wandb_history(folder) for key in row}
    assert logged >= set(expected) - {"*"}


def test_wandb_has_the_layers_of_the_last_measurement_in_the_summary_of_the_run(run):
    folder, (callback, _) = run
    table, measurement = (
        records.wandb_summary(folder)["separation/train/layers"],
        callback.history[-1],
    )
    assert list(table) == ["epochs_completed", "layer", "depth", "D"]
    assert table["epochs_completed"] == [measurement.epochs_completed] * 3
    assert table["layer"] == ["input", "net.2", "net.6"]
    assert table["depth"] == [0, 1, 2]
    assert table["D"] == pytest.approx(measurement.arrays["fuzziness"].tolist(), rel=1e-12)


def test_wandb_has_a_chart_of_ln_D_over_depth_with_a_line_per_epoch(run):
    folder, (callback, _) = run
    chart = records.wandb_charts(folder)["separation/train/layers_by_epoch"]
    assert chart["panelDefId"] == "wandb/lineseries/v0"
    assert chart["stringSettings"] == {"title": "ln D over depth, train", "xname": "depth"}
    (last,) = records.wandb_tables(folder, "separation/train/layers_by_epoch_table")
    assert last["columns"] == list(chart["fieldSettings"].values())
    expected = [
        (depth, f"{measurement.epochs_completed:g} epochs", pytest.approx(math.log(D)))
        for measurement in callback.history
        for depth, D in enumerate(measurement.arrays["fuzziness"].tolist())
    ]
    assert list(map(tuple, last["data"])) == expected


@pytest.mark.parametrize("name", ["cosines_of_means", "cosines_of_weights"])
def test_wandb_has_every_cosine_of_the_last_measurement_in_the_summary_of_the_run(name, run):
    folder, (_, callback) = run
    table, measurement = records.wandb_summary(folder)[f"nc/train/{name}"], callback.history[-1]
    assert list(table) == ["epochs_completed", "x", "y", "value"]
    assert set(table["epochs_completed"]) == {measurement.epochs_completed}
    matrix = measurement.arrays[name]
    expected = [float(matrix[y, x]) for x, y in zip(table["x"], table["y"], strict=True)]
    assert len(expected) == 9
    assert table["value"] == pytest.approx(expected, rel=1e-12)


def test_the_number_of_tables_does_not_grow_with_that_of_measurements(run):
    folder, _ = run
    assert len(list(folder.rglob("*.table.json"))) == 1  # of the chart of ln D


def test_a_large_table_is_a_file_of_its_own_once_at_the_end(tmp_path, offline, monkeypatch):
    monkeypatch.setattr(tables, "_SMALL", 8)
    used = NeuralCollapse()
    assert fit(tmp_path, [used]) == []
    for name in ("cosines_of_means", "cosines_of_weights"):
        (table,) = records.wandb_tables(tmp_path, f"nc/train/{name}")
        assert table["columns"] == ["epochs_completed", "x", "y", "value"]
        assert {row[0] for row in table["data"]} == {used.history[-1].epochs_completed}
        assert len(table["data"]) == 9


def test_wandb_is_sent_an_alert_when_the_terminal_phase_begins(tmp_path, offline):
    net = torch.nn.Linear(6, 3)
    used = [NeuralCollapse(figures=False), NeuralCollapse(probe="val", figures=False)]
    assert fit(tmp_path, used, net=net, data=nets.vectors(spread=0.01), max_epochs=30) == []
    first = used[0].terminal_epoch
    assert first is not None
    assert used[1].terminal_epoch is not None
    ((title, text),) = records.wandb_alerts(tmp_path)
    assert title == "terminal phase"
    start = "NeuralCollapse on 'train': "
    assert text.startswith(
        f"{start}after {first:g} epochs the classifier makes no error on the 30 "
    )


def test_wandb_has_axes_under_the_prefix_of_the_logger_and_no_table_without_figures(
    tmp_path, offline
):
    assert fit(tmp_path, [EquiSeparation(figures=False)], prefix="mine") == []
    axes = dict(records.wandb_axes(tmp_path))
    assert axes["mine-separation/train/rho"] == "mine-separation/train/epochs_completed"
    logged = {key for row in records.wandb_history(tmp_path) for key in row}
    assert set(axes) - set(OTHERS) <= logged
    assert not list(tmp_path.rglob("*.table.json"))


def test_a_table_that_wandb_refuses_costs_a_warning_and_no_value(tmp_path, offline, monkeypatch):
    def refuse(self, key, **options):
        raise OSError("no table today")

    monkeypatch.setattr(WandbLogger, "log_table", refuse)
    monkeypatch.setattr(tables, "_SMALL", 0)
    told = fit(tmp_path, [NeuralCollapse(epochs=[1])])
    # of both tables
    assert told == ["Could not log a table to WandbLogger: OSError('no table today')"]
    assert len([r for r in records.wandb_history(tmp_path) if "nc/train/nc1" in r]) == 1


def test_of_many_measurements_ten_are_lines_and_points_without_a_logarithm_are_left_out(tmp_path):
    callback = EquiSeparation(figures=False)
    nets.fit(tmp_path, [callback], max_epochs=25)
    key, measured = "separation_layers/train/net.2", list(callback.history)
    measured[0].values[key], measured[-1].values[key] = 0.0, math.nan
    timeline = callback.record.timeline()._replace(measurements=measured)
    lines = callback.measure.tables(timeline)["layers_by_epoch"].lines
    epochs = [0, 3, 6, 8, 11, 14, 17, 19, 22, 25]
    assert list(lines) == [f"{epoch} epochs" for epoch in epochs]
    assert [len(xs) for xs, _ in lines.values()] == [2] + [3] * 8 + [2]
    assert lines["0 epochs"][0] == [0, 2]


def test_matrices_of_many_classes_are_no_tables(tmp_path):
    data = nets.vectors((2,) * 33, d=6)
    callback = NeuralCollapse(probe=Probe(data, "many"), figures=False)
    nets.fit(tmp_path, [callback], data=data, net=nets.mlp(K=33), max_epochs=1)
    assert callback.history[-1].arrays["cosines_of_means"].shape == (33, 33)
    assert tables_of(callback) == {}
