import math
import re
import shutil

import pytest
from pytorch_lightning import Callback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, NeuralCollapse, Probe
from lightning_nc.measures import NextTokenMeasure, SeparationMeasure
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.measures.family import Family
from lightning_nc.measures.quantity import charts_of_rows
from lightning_nc.report.numbers import typeset
from lightning_nc.report.over_depth import depth_of_runs_svg, depth_svg
from lightning_nc.report.over_epochs import panel_svg
from lightning_nc.report.page import report_page
from lightning_nc.report.pictures import pictures
from lightning_nc.report.runs import Series, read_runs
from tests import nets
from tests.drawn_words import cut_off
from tests.report.conftest import small_run
from tests.report.logs import text_of, to_page, write
from tests.report.pages import Page

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

SHARED = "separation nc minority"  # families of one pass
BOOK = tuple(row.name for row in BOOKKEEPING)


def page_of(root):
    return Page(report_page(*read_runs(root)))


def logged(callbacks):
    """All values of the histories, first to last, by key."""
    keys = {key: m for callback in callbacks for m in callback.history for key in m.values}
    return {
        key: [m.values[key] for c in callbacks for m in c.history if key in m.values]
        for key in keys
        if key.rpartition("/")[-1] not in BOOK
    }


def test_measurements_within_the_first_epoch_of_unknown_length_are_all_shown(tmp_path):
    callback = NeuralCollapse(probe="val", when="validation_end", figures=False)
    loggers = [TensorBoardLogger(tmp_path, "events", ""), CSVLogger(tmp_path, "csv", "")]
    options = {"logger": loggers, "max_epochs": 1, "val_check_interval": 2}
    run = nets.trainer(tmp_path, [callback], **options)
    stream = nets.Stream(nets.vectors((20, 20, 20)))  # six batches
    loaders = DataLoader(stream, 10), DataLoader(nets.vectors(seed=2), 10)
    run.fit(nets.Classifier(freeze=0), *loaders)
    (read,) = read_runs(tmp_path).runs  # of both loggers
    series = read.series["nc", "val"]
    assert series.values["nc1"] == callback.history.series("nc/val/nc1")
    assert series.epochs == [0, 0, 0, 1]
    assert series.times == [f"step {measurement.step}" for measurement in callback.history]
    text = page_of(tmp_path).text
    assert "4 measurements, up to 1 epoch completed" in text
    assert series.times[-1] in text


def test_symbols_are_those_of_the_documents():
    assert typeset("Tr(Sigma_W Sigma_B^+)/K") == "Tr(Σ_W Σ_B⁺)/K"


def rows_of(page):
    return {key: values for (key, run), values in page.values.items() if run is not None}


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(("logger", "precision"), [("csv", 0.0), ("events", 1e-6), ("", 0.0)])
def test_first_and_last_values_are_those_of_the_history(run, logger, precision):
    rows, history = rows_of(page_of(run[0] / logger)), logged(run[1])
    assert rows.keys() == history.keys()
    for key, values in history.items():
        ends = [rows[key][0], rows[key][-1]]
        expected = [values[0], values[-1]]
        assert ends == pytest.approx(expected, rel=precision, abs=0, nan_ok=True), key


@pytest.mark.usefixtures("without_pictures")
def test_the_best_value_is_the_best_of_the_history(run):
    rows, history = rows_of(page_of(run[0] / "csv")), logged(run[1])
    for key, best in (
        ("nc/train/nc1", min),
        ("nc/train/accuracy", max),
        ("separation/train/pearson_r", min),
        ("elasticity/train/relative_ratio", max),
    ):
        assert rows[key][1] == best(history[key])


@pytest.mark.usefixtures("without_pictures")
def test_layers_are_in_depth_whichever_logger_wrote(run):
    keys = [key for key in run[1][0].history[0].values if key.startswith("separation_layers/")]
    for logger in ("csv", "events", ""):
        rows = rows_of(page_of(run[0] / logger))
        assert [key for key in rows if key.startswith("separation_layers/")] == keys


def test_the_page_refers_to_nothing_outside_itself(drawn):
    page = Page(drawn)
    assert page.pictures > 10
    assert "With K balanced classes the cosine is" in page.text
    assert page.references
    outward = {r for r in page.references if not r.startswith("data:image/png;base64,")}
    assert outward <= {f"#{each}" for each in page.ids}
    assert "http" not in drawn
    assert "@import" not in drawn
    assert drawn.count("url(") == drawn.count("url(#")


def test_ids_are_unique(drawn):
    ids = Page(drawn).ids
    assert len(ids) == len(set(ids))


def test_the_same_values_give_the_same_pictures(run):
    (found,) = read_runs(run[0]).runs
    series = found.series["separation", "train"]
    assert depth_svg(series, "D", law=True) == depth_svg(series, "D", law=True)
    several = {"a": series, "b": series}
    assert depth_of_runs_svg(several, "D") == depth_of_runs_svg(several, "D")
    chart = next(iter(charts_of_rows(SeparationMeasure.quantities).items()))
    assert panel_svg(*chart, several) == panel_svg(*chart, several)
    assert panel_svg(*chart, several) != panel_svg(*chart, {"a": series})


@pytest.mark.usefixtures("without_pictures")
def test_a_run_with_two_loggers_is_one_and_two_runs_are_compared(run, tmp_path):
    assert len(read_runs(run[0]).runs) == 1
    shutil.copytree(run[0], tmp_path / "a")
    (tmp_path / "b").mkdir()
    others = small_run(tmp_path / "b", max_epochs=1, batch_size=7)
    runs = read_runs(tmp_path).runs
    assert [each.name for each in runs] == ["a/events", "b/events"]
    page = page_of(tmp_path)
    compared = page.values["separation/train/rho", None]
    assert compared == [
        callbacks[0].history[-1].values["separation/train/rho"] for callbacks in (run[1], others)
    ]
    assert "D against depth, all runs" in page.text
    assert page.values["nc/val/nc1", "b/events"][-1] == others[-1].history[-1].values["nc/val/nc1"]


def test_epochs_that_share_a_step_are_told_apart(tmp_path):
    # one batch per epoch: before training and after the first epoch the step is 0
    callbacks = small_run(tmp_path, batch_size=30, max_epochs=2)
    steps = [m.step for m in callbacks[1].history]
    assert len(set(steps)) < len(steps)
    for logger in ("csv", "events"):
        (found,) = read_runs(tmp_path / logger).runs
        series = found.series["nc", "train"]
        assert series.epochs == [m.epochs_completed for m in callbacks[1].history]
        nc1 = [m.values["nc/train/nc1"] for m in callbacks[1].history]
        assert series.values["nc1"] == pytest.approx(nc1, rel=1e-6)


@pytest.mark.parametrize("prefix", ["mine", "a-b/nc/c"])
def test_a_prefix_of_the_logger_is_no_part_of_the_keys(prefix, tmp_path):
    options = {"name": "", "version": "", "prefix": prefix}
    loggers = [TensorBoardLogger(tmp_path / "events", **options)]
    loggers += [CSVLogger(tmp_path / "csv", **options)]
    callbacks = small_run(tmp_path, logger=loggers, max_epochs=1)
    for folder in (tmp_path, tmp_path / "events", tmp_path / "csv"):
        (found,) = read_runs(folder).runs
        for callback in callbacks:
            series = found.series[callback.family, callback.probe.key]
            assert series.epochs == [0, 1]
            values = {*series.values, *(f"layers/{name}" for name in series.layers)}
            assert len(values) + 1 == len(callback.history[0].values)  # and the epoch


@pytest.mark.usefixtures("without_pictures")
def test_undefined_values_are_a_dash_and_the_word(tmp_path):
    two_classes = nets.vectors((12, 12))
    options = {"data": two_classes, "net": nets.mlp(K=2), "max_epochs": 1}
    with pytest.warns(RuntimeWarning, match="undefined"):
        nets.fit(
            tmp_path, [NeuralCollapse(figures=False)], logger=CSVLogger(tmp_path, "", ""), **options
        )
    page = page_of(tmp_path)
    first, last = page.values["nc/train/nc2_equinorm_means", page_run(page)]  # none is the best
    assert first != first
    assert last != last
    assert "\N{EN DASH} undefined" in page.text


@pytest.mark.usefixtures("without_pictures")
def test_failures_are_counted(tmp_path):
    broken, works = (
        NeuralCollapse(probe=probe, figures=False)
        for probe in (Probe(nets.Broken(), name="broken"), "train")
    )
    loggers = [TensorBoardLogger(tmp_path, "events", ""), CSVLogger(tmp_path, "csv", "")]
    with pytest.warns(RuntimeWarning, match="the disk is gone"):
        nets.fit(tmp_path, [broken, works], logger=loggers)
    assert broken.failures == 3
    for logger in ("csv", "events"):
        (found,) = read_runs(tmp_path / logger).runs
        assert found.series["nc", "broken"].failures == 3
        assert found.series["nc", "train"].failures == 0
        page = page_of(tmp_path / logger)
        assert 3.0 in page.values["nc", None]


@pytest.mark.usefixtures("without_pictures")
def test_failures_and_values_from_earlier_are_told_at_the_top(tmp_path):
    class Loss(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                next(pl_module.parameters()).data.fill_(math.nan)

    used = [NeuralCollapse(figures=False), EquiSeparation(epochs=[0], figures=False), Loss()]
    with pytest.warns(RuntimeWarning, match="finite"):
        nets.fit(tmp_path, used, logger=CSVLogger(tmp_path, "", ""), max_epochs=4)
    text = page_of(tmp_path).text
    assert text.index("Measurements failed, up to 2 of each callback") < text.index("Decay ratio")
    top = text[: text.index("The law of equi-separation")]
    assert top.count("at epoch 0") == 2  # rho and r
    assert "at epoch 2" not in top  # the newest of all


def test_callbacks_that_share_a_pass_are_one_row_of_seconds_and_one_figure(drawn, run):
    page = Page(drawn)
    (shared,) = [values for (key, _), values in page.values.items() if key == SHARED]
    assert shared[0] == len(run[1][0].history)
    assert shared[2] == sum(m.values["separation/train/seconds"] for m in run[1][0].history)
    together = "The law of equi-separation, Neural collapse, Minority collapse"
    titles = re.findall(r"<h4>(.*): seconds</h4>", drawn)
    assert titles == [together, "Local elasticity", "Neural collapse"]  # the last on val


def page_run(page):
    (name,) = {run for _, run in page.values if run is not None}
    return name


@pytest.mark.parametrize("names", [["run"], ["W" * 99, "a/folder_of_runs/with_a_long_name_seed_1"]])
def test_no_word_of_a_picture_is_cut_off(run, names):
    (found,) = read_runs(run[0] / "csv").runs
    with cut_off() as words:
        for family in found.families:
            runs = dict.fromkeys(names, found.series[family.name, "train"])
            drawn = pictures(family, runs)
            assert all(picture.svg for picture in drawn)
    law = dict.fromkeys(names, found.series["separation", "train"])
    with cut_off() as of_label:
        depth_svg(law[names[0]], "class-distance normalised variance at this layer", True)
        depth_of_runs_svg(law, "class-distance normalised variance at this layer")
    assert words + of_label == []


@pytest.mark.parametrize(
    ("measure", "symbol"), [(SeparationMeasure, "D"), (NextTokenMeasure, "PR")]
)
def test_the_caption_of_a_law_names_what_falls(measure, symbol):
    series = Series(
        [0.0], {"rho": [0.5], "pearson_r": [-1.0]}, {"a": [2.0], "b": [1.0]}, True, 0, [0.0]
    )
    picture = pictures(Family.of(measure), {"run": series})[0]
    assert f"The law, by which {symbol} falls" in picture.caption


def test_a_rounded_value_does_not_look_like_the_exact_one(tmp_path, capsys):
    header = ["epoch", "nc/train/accuracy", "nc/train/epochs_completed", "nc/train/nc1", "step"]
    rows = [[0, 0.99996, 1, 9999.7, 0], [1, 1.0, 2, 0.127, 3]]
    write(tmp_path / "run", text_of(header, rows))
    words = Page(to_page(tmp_path / "run", tmp_path, capsys)[0]).words
    assert {"1.000", "1", "10000", "0.127"} <= set(words)
