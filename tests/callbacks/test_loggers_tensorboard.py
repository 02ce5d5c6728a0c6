"""The charts that TensorBoard is told to show under "Custom Scalars"."""

import re

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_nc import EquiSeparation, LocalElasticity, MinorityCollapse, NeuralCollapse, Probe
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from tests import nets
from tests.callbacks import records

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def titles_of(callback):
    """The titles of the charts that the rows of a callback's measure ask for."""
    probe, measure = callback.probe.key, callback.measure
    panels = [row.chart.panel.title for row in measure.quantities if row.chart]
    # with more than two curves, each probe has a chart of its own
    of_all = [name if panels.count(name) <= 2 else f"{name} ({probe})" for name in panels]
    layers = [f"{row.chart.panel.title} ({probe})" for row in measure.layer_quantities if row.chart]
    return list(dict.fromkeys([*of_all, *layers]))


def shown(patterns, folder):
    """The keys of all that was logged which a chart shows, as TensorBoard looks for them."""
    logged = records.tensorboard_events(folder).Tags()["scalars"]
    return {key for key in logged for pattern in patterns if re.match(pattern, key)}


def titles(layout):
    return {category: list(charts) for category, charts in layout.items()}


def test_there_are_charts_of_all_callbacks_and_probes_in_one_layout(tmp_path):
    used = [
        *(kind(figures=False) for kind in nets.CALLBACKS),
        NeuralCollapse(probe="val", figures=False, when="validation_end"),
    ]
    nets.fit(tmp_path, used, logger=TensorBoardLogger(tmp_path))
    *_, layout = records.tensorboard_layouts(tmp_path)  # TensorBoard shows the last
    expected = {}
    for callback in used:
        expected.setdefault(callback.family, {}).update(dict.fromkeys(titles_of(callback)))
    expected = {family: list(of_family) for family, of_family in expected.items()}
    assert titles(layout) == expected
    for charts in layout.values():
        for patterns in charts.values():
            assert shown(patterns, tmp_path)
    assert shown(layout["separation"]["D at each layer (train)"], tmp_path) == {
        f"separation_layers/train/{layer}" for layer in ("input", "net.2", "net.6")
    }
    assert shown(layout["elasticity"]["Relative ratio"], tmp_path) == {
        "elasticity/train/relative_ratio",
        "elasticity/train/relative_ratio_self_pairs",
    }
    of_nc1 = layout["nc"]["NC1: samples collapse to class means"]
    of_probes = {f"nc/{probe}/{name}" for probe in ("train", "val") for name in ("nc1", "cdnv")}
    assert shown(of_nc1, tmp_path) == of_probes
    of_nc2 = shown(layout["nc"]["NC2: means and rows form a simplex (val)"], tmp_path)
    assert len(of_nc2) == 8
    assert all(key.startswith("nc/val/") for key in of_nc2)


def test_bookkeeping_is_the_last_group_of_charts_and_quantities_are_in_others(tmp_path):
    used = [kind(figures=False) for kind in nets.CALLBACKS]
    nets.fit(tmp_path, used, logger=TensorBoardLogger(tmp_path))
    tags = records.tensorboard_events(tmp_path).Tags()["scalars"]
    groups = sorted({tag.partition("/")[0] for tag in tags})
    assert groups[-1] == "~bookkeeping"
    of_book = {tag for tag in tags if tag.startswith("~bookkeeping/")}
    names = [row.name for row in BOOKKEEPING]
    assert of_book == {f"~bookkeeping/{c.record.prefix}{name}" for c in used for name in names}
    assert not {tag for tag in set(tags) - of_book if tag.rpartition("/")[2] in names}


def test_a_chart_shows_its_own_probe_whatever_the_name_and_the_prefix_of_the_logger(tmp_path):
    names = ["a.b", "a+b", "aXb", "aab"]
    used = [NeuralCollapse(probe=Probe(nets.vectors(), name), figures=False) for name in names]
    nets.fit(tmp_path, used, logger=TensorBoardLogger(tmp_path, prefix="run (1)"))
    *_, layout = records.tensorboard_layouts(tmp_path)
    for name in names:
        of_nc2 = shown(layout["nc"][f"NC2: means and rows form a simplex ({name})"], tmp_path)
        assert len(of_nc2) == 8
        assert all(key.startswith(f"run (1)-nc/{name}/") for key in of_nc2)
    for pattern, key in zip(
        layout["nc"]["NC3: classifier and means agree"], ("nc3", "unc3"), strict=True
    ):
        assert shown([pattern], tmp_path) == {f"run (1)-nc/{name}/{key}" for name in names}


def test_runs_with_other_probes_have_equal_charts_of_all_probes(tmp_path):
    # TensorBoard draws charts that differ for each of the runs it shows
    for probe in ("train", "val"):
        used = [EquiSeparation(probe=probe, figures=False)]
        nets.fit(tmp_path, used, logger=TensorBoardLogger(tmp_path, probe))
    one, other = (records.tensorboard_layouts(tmp_path / probe)[-1] for probe in ("train", "val"))
    alike = ["Decay ratio rho", "Straightness r", "Half-life"]
    for title in alike:
        assert one["separation"][title] == other["separation"][title]
    assert [title for title in one["separation"] if title not in alike] == [
        "D at each layer (train)"
    ]


def test_what_is_not_logged_has_no_chart(tmp_path):
    used = [NeuralCollapse(head=False, figures=False), MinorityCollapse(figures=False)]
    with pytest.warns(RuntimeWarning, match="not logged"):  # no class is rare
        nets.fit(tmp_path, used, logger=TensorBoardLogger(tmp_path))
    for layout in records.tensorboard_layouts(tmp_path):
        assert list(layout) == ["nc"]
        assert [title.split(":")[0] for title in layout["nc"]] == ["NC1", "NC2"]


def test_the_layout_is_written_once_for_each_folder(tmp_path):
    logger = TensorBoardLogger(tmp_path / "first")
    nets.fit(tmp_path, [NeuralCollapse(figures=False)], logger=logger)
    nets.fit(tmp_path, [NeuralCollapse(figures=False)], logger=logger)
    assert len(records.tensorboard_layouts(tmp_path)) == 1
    checkpoint = tmp_path / "last.ckpt"
    resumed = NeuralCollapse(figures=False)
    run = nets.fit(
        tmp_path, [NeuralCollapse(figures=False)], logger=False, enable_checkpointing=True
    )
    run.save_checkpoint(checkpoint)
    nets.fit(
        tmp_path,
        [resumed],
        logger=TensorBoardLogger(tmp_path / "second"),
        max_epochs=3,
        fit_options={"ckpt_path": checkpoint},
    )
    assert len(resumed.history) == 4
    (layout,) = records.tensorboard_layouts(tmp_path / "second")
    assert list(layout) == ["nc"]


def test_what_a_later_run_of_the_logger_adds_is_shown_with_the_rest(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    nets.fit(tmp_path, [NeuralCollapse(figures=False)], logger=logger)
    nets.fit(tmp_path, [EquiSeparation(figures=False)], logger=logger)
    layouts = records.tensorboard_layouts(tmp_path)
    assert [list(layout) for layout in layouts] == [["nc"], ["nc", "separation"]]


def test_a_layout_that_cannot_be_written_costs_one_warning_and_no_value(tmp_path):
    class Deaf(TensorBoardLogger):
        @property
        def experiment(self):
            super().experiment.add_custom_scalars = self.refuse
            return super().experiment

        def refuse(self, layout):
            raise OSError("no layout today")

    used = [NeuralCollapse(figures=False), LocalElasticity(figures=False)]
    message = "Could not arrange panels of Deaf.*no layout today"
    with pytest.warns(RuntimeWarning, match=message) as told:
        nets.fit(tmp_path, used, logger=Deaf(tmp_path))
    assert len([w for w in told if "no layout today" in str(w.message)]) == 1
    assert len(records.tensorboard_events(tmp_path).Scalars("nc/train/nc1")) == 3


def test_hyperparameters_are_left_as_the_user_logged_them(tmp_path):
    kept = {}
    for name, callbacks in (("without", []), ("with", [EquiSeparation(), NeuralCollapse()])):
        logger = TensorBoardLogger(tmp_path, name=name)
        logger.log_hyperparams({"width": 12}, {"score": 0.5})
        nets.fit(tmp_path, callbacks, logger=logger)
        events = records.tensorboard_events(tmp_path / name)
        kept[name] = (
            (tmp_path / name / "version_0" / "hparams.yaml").read_text(),
            events.PluginTagToContent("hparams"),
        )
    assert "width: 12" in kept["with"][0]
    assert kept["with"][0] == kept["without"][0]
    assert kept["with"][1].keys() == kept["without"][1].keys()
    assert kept["with"][1]["_hparams_/experiment"] == kept["without"][1]["_hparams_/experiment"]
