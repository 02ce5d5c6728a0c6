"""The saved view of W&B shows what is logged."""

import json
import re
import sys

import pytest

from lightning_nc.__main__ import main
from lightning_nc.integrations.wandb_view import wandb_view
from lightning_nc.measures import MEASURES
from tests import nets
from tests.callbacks.test_logging import filled_in, keys_of
from tests.callbacks.test_plots import TITLES

pytest.importorskip("wandb_workspaces")
pytestmark = pytest.mark.filterwarnings("ignore")  # the library uses what is deprecated

LAYERS = ["input", "net.2", "net.6"]


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    path = tmp_path_factory.mktemp("view") / "view.json"
    probes = ["--probe", "train", "mine"]
    main(["wandb-view", "me", "project", *probes, "--json", str(path)])
    view = json.loads(path.read_text())
    assert (view["entity"], view["project"]) == ("me", "project")
    return view["spec"]["section"]["panelBankConfig"]["sections"]


def test_the_view_has_a_section_per_callback_and_probe(sections):
    titles = [measure.title for measure in MEASURES]
    names = [f"{title} ({probe})" for probe in ("train", "mine") for title in titles]
    assert [section["name"] for section in sections] == names


@pytest.mark.parametrize("probe", ["train", "mine"])
def test_every_metric_and_axis_of_the_view_is_logged(probe, sections):
    keys = {key for kind in nets.CALLBACKS for key in keys_of(kind, on_request=True)}
    logged = {k for layer in LAYERS for k in filled_in(keys, probe, [layer])}
    plots = [
        panel["config"]
        for section in sections
        if section["name"].endswith(f"({probe})")
        for panel in section["panels"]
        if panel["viewType"] == "Run History Line Plot"
    ]
    assert len(plots) > 12
    for plot in plots:
        shown = set(plot["metrics"] or []) or {
            key for key in logged if re.search(plot["metricRegex"], key)
        }
        assert shown, plot["chartTitle"]
        assert shown <= logged, shown - logged
        families = {key.split("/")[0].removesuffix("_layers") for key in shown}
        assert [f"{family}/{probe}/epochs_completed" for family in families] == [plot["xAxis"]]
    logarithmic = {key for plot in plots if plot["yLogScale"] for key in plot["metrics"]}
    assert {f"nc/{probe}/{name}" for name in ("nc1", "nc2_etf_error", "nc3", "nc4")} <= logarithmic


def test_every_figure_and_film_of_the_view_is_logged(sections):
    shown = {
        key
        for section in sections
        for panel in section["panels"]
        for key in panel["config"].get("mediaKeys", [])
        if "/train/" in key
    }
    assert shown == {*TITLES, "minority/train/theory", "nc/train/collapse"}


def test_without_the_library_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(SystemExit) as left:
        main(["wandb-view", "me", "project"])
    assert left.value.code == 2
    assert "pip install 'lightning-neural-collapse[wandb]'" in capsys.readouterr().err


def test_the_view_can_be_made_in_a_program():
    view = wandb_view("me", "project", ["val"])
    assert (view.entity, view.project, len(view.sections)) == ("me", "project", len(MEASURES))
