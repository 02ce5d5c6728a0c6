"""Runs, probes and layers of any name: all are shown, as text."""

import csv
import os

import pytest

from lightning_nc.measures import Curve, Panel
from lightning_nc.report import over_epochs
from lightning_nc.report.page import report_page
from lightning_nc.report.runs import read_runs
from tests import nets
from tests.report.logs import HEADER, ROWS, to_page, write, write_events
from tests.report.pages import Page

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

HOSTILE = [
    *(
        "lr$\\foo$",
        "_baseline",
        "two\nlines",
        "\N{GRINNING FACE}",
        "x" * 250,
        "<script>alert(1)</script>",
    ),
    *("\"'&<b>", "$", "rho", "\u202eleft", "a" * 249 + "b"),
]


def test_runs_in_folders_of_any_name_are_all_shown_with_their_legends(tmp_path, capsys):
    root = tmp_path / "logs"
    for name in HOSTILE:
        write(root / name.replace("/", "_"))
    write(root / os.fsdecode(b"\xff\xfe"))
    page, printed = to_page(root, tmp_path, capsys)
    assert f"{len(HOSTILE) + 1} runs" in printed.out
    assert printed.err == ""
    assert "could not be drawn" not in page
    assert "<script" not in page
    assert "\\udcff\\udcfe" in page
    text = Page(page).text
    for name in (
        "lr$\\foo$",
        "_baseline",
        "two\\nlines",
        "\N{GRINNING FACE}",
        "x" * 250,
        "\"'&<b>",
    ):
        assert name in text


def test_no_run_is_missing_in_a_legend(tmp_path, monkeypatch):
    monkeypatch.setattr(over_epochs, "svg_of", lambda figure: figure)
    for name in HOSTILE:
        write(tmp_path / name)
    series = {run.name: run.series["nc", "train"] for run in read_runs(tmp_path).runs}
    panel = Panel("NC1", "")
    figure = over_epochs.panel_svg(panel, {"nc1": Curve(panel, "_nc1")}, series)
    figure.canvas.draw()
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(set(labels)) == len(HOSTILE)
    assert all(len(label) < 50 for label in labels)


NAMES = [
    "two\nlines",
    "$\\foo$",
    "<script>x</script>",
    "\"'&",
    "a,b",
    "_p",
    "a/b",
    "\N{GRINNING FACE}",
    "p" * 300,
]


@pytest.mark.parametrize("logger", ["csv", "events"])
def test_probes_of_any_name_are_shown(logger, tmp_path, capsys):
    root = tmp_path / "logs"
    keys = {"epochs_completed": 0, "failures": 0, "nc1": 4.0}
    tags = {f"nc/{name}/{key}": value for name in NAMES for key, value in keys.items()}
    if logger == "csv":
        root.mkdir()
        with (root / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["epoch", *tags], [0, *tags.values()]])
    else:
        write_events(root, tags)
    (run,), remarks = read_runs(root)
    assert [probe for _, probe in run.series] == NAMES
    assert remarks == []
    page, _ = to_page(root, tmp_path, capsys)
    assert "<script" not in page
    assert "could not be drawn" not in page
    text = Page(page).text
    assert all(name.replace("\n", "\\n") in text for name in NAMES)


def test_layers_of_any_name_are_drawn(tmp_path):
    layers = [
        "input",
        "$\\foo$",
        "_x",
        "two\nlines",
        "²",
        "failures",
        "epochs_completed",
        "9" * 400,
    ]
    header = [*HEADER, "separation/train/epochs_completed", "separation/train/rho"]
    header += [f"separation_layers/train/{layer}" for layer in layers]
    rows = [[*row, row[1], 0.5, *(0.5**t for t in range(len(layers)))] for row in ROWS]
    with (tmp_path / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    runs, remarks = read_runs(tmp_path)
    assert set(runs[0].series["separation", "train"].layers) == set(layers)
    assert "could not be drawn" not in report_page(runs, remarks)
