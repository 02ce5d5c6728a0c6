"""One small run with all callbacks and two loggers."""

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_nc import EquiSeparation, LocalElasticity, MinorityCollapse, NeuralCollapse
from lightning_nc.report import pictures
from lightning_nc.report.page import report_page
from lightning_nc.report.runs import read_runs
from tests import nets


def small_run(root, **options):
    """The callbacks of a run that logged to ``events`` and ``csv`` in a folder."""
    callbacks = [
        EquiSeparation(figures=False),
        NeuralCollapse(figures=False),
        MinorityCollapse(minority=[1, 2], figures=False),
        LocalElasticity(samples_per_class=2, figures=False),
        NeuralCollapse(probe="val", figures=False),
    ]
    loggers = [TensorBoardLogger(root, "events", ""), CSVLogger(root, "csv", "")]
    nets.fit(root, callbacks, **({"logger": loggers, "max_epochs": 2} | options))
    return callbacks


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    """Folder and callbacks."""
    root = tmp_path_factory.mktemp("run")
    return root, small_run(root)


@pytest.fixture(scope="package")
def drawn(run):
    """The page of the run."""
    return report_page(*read_runs(run[0]))


@pytest.fixture
def without_pictures(monkeypatch):
    """Pages of words and tables alone: to draw takes most of the time."""
    for draw in ("panel_svg", "depth_svg", "depth_of_runs_svg"):
        monkeypatch.setattr(pictures, draw, lambda *_: "<svg></svg>")
