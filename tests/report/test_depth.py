import csv
import dataclasses
from collections import OrderedDict

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from lightning_nc import EquiSeparation
from lightning_nc.functional import separation_law
from lightning_nc.report.depth import order_in_depth
from lightning_nc.report.page import report_page
from lightning_nc.report.runs import read_runs
from tests import nets
from tests.report.pages import Page

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

NAMES = ["stem", "body", "neck", "and_on"]  # neither in this order nor in the opposite by name


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("depth")
    blocks = {name: nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for name in NAMES}
    net = nn.Sequential(OrderedDict(blocks, head=nn.Linear(6, 3)))
    callback = EquiSeparation(["input", *(f"net.{name}" for name in NAMES)], figures=False)
    loggers = [TensorBoardLogger(root, "events", ""), CSVLogger(root, "csv", "")]
    nets.fit(root, [callback], net=net, logger=loggers, max_epochs=1)
    keys = [key for key in callback.history[0].values if key.startswith("separation_layers/")]
    return root, [key.rpartition("/")[-1] for key in keys]


@pytest.mark.parametrize("logger", ["csv", "events", ""])
def test_depth_is_recovered_where_names_do_not_tell(run, logger):
    root, in_depth = run
    assert in_depth == ["input", *(f"net.{name}" for name in NAMES)]
    (found,) = read_runs(root / logger).runs
    series = found.series["separation", "train"]
    assert list(series.layers) == in_depth
    assert series.in_depth


def test_where_no_order_is_known_the_raw_input_comes_first():
    names, unknown = ["10", "2", "input", "raw_input"], np.full(1, np.nan)
    found = order_in_depth(names, np.full((1, 4), np.nan), unknown, unknown)
    assert found == (["raw_input", "input", "2", "10"], False)


@pytest.mark.usefixtures("without_pictures")
def test_where_no_order_gives_the_logged_law_the_page_says_so(run, tmp_path):
    with (run[0] / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["separation/train/rho"]:
            row["separation/train/rho"] = float(row["separation/train/rho"]) * 1.001
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    reading = read_runs(tmp_path)
    assert not reading.runs[0].series["separation", "train"].in_depth
    assert "layers are shown by name" in report_page(*reading)
    (known,) = read_runs(run[0] / "csv").runs
    law, by_name = "The law is a falling straight line.", "Layers of beside are sorted by name, "
    beside = dataclasses.replace(reading.runs[0], name="beside")
    page = Page(report_page([known, beside])).text
    assert by_name in page
    assert law not in page
    page = Page(report_page([known, dataclasses.replace(known, name="beside")])).text
    assert law in page
    assert by_name not in page


def laws(D):
    rho = np.array([float(separation_law(torch.from_numpy(row)).rho) for row in D])
    return rho, D[:, -1] / D[:, 0]


@pytest.mark.parametrize("measurements", [1, 14])
def test_many_layers_are_in_natural_order_or_in_that_of_the_slopes(measurements):
    names = ["input", *(f"block.{i}" for i in range(12))]
    D = np.exp(np.random.default_rng(0).normal(size=(measurements, 13)))
    by_text = sorted(range(13), key=lambda i: names[i])  # block.10 before block.2
    found = order_in_depth([names[i] for i in by_text], D[:, by_text], *laws(D))
    assert found == (names, True)


def test_enough_measurements_determine_the_depth_of_many_layers_with_any_names():
    rng = np.random.default_rng(1)
    names = [f"{letter}" for letter in rng.permutation(list("abcdefghijklmn"))]
    D = np.exp(rng.normal(size=(20, 14)))
    shuffled = rng.permutation(14)
    found = order_in_depth([names[i] for i in shuffled], D[:, shuffled], *laws(D))
    assert found == (names, True)


def test_without_a_law_the_order_is_not_known():
    D, nothing = np.ones((2, 3)), np.full(2, np.nan)
    assert order_in_depth(["b", "input", "a"], D, nothing, nothing) == (["input", "a", "b"], False)
