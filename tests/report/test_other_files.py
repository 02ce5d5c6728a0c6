"""What else a folder of logs may hold: it is named on the page, and costs no run."""

import json
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nc import __main__ as command
from lightning_nc.measures import CollapseMeasure
from lightning_nc.measures.family import Family
from lightning_nc.report.page import report_page
from lightning_nc.report.runs import read_runs
from tests import nets
from tests.report.logs import (
    FUZZ,
    ROWS,
    nc1,
    shown_or_a_sentence,
    text_of,
    to_page,
    write,
    write_events,
)
from tests.report.pages import Page

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

STATE = Family.of(CollapseMeasure).to_state()


def of_another_tool(folder):
    write(folder, "step,train/loss\n0,1.0\n")


def binary(folder):
    write(folder, bytes(range(256)) * 40)


def empty(folder):
    write(folder, b"")


def without_a_header(folder):
    write(folder, text_of(ROWS[0], ROWS[1:]))


def a_directory(folder):
    (folder / "metrics.csv").mkdir(parents=True)


def a_dangling_link(folder):
    folder.mkdir()
    (folder / "metrics.csv").symlink_to("nowhere")


def a_circle_of_links(folder):
    folder.mkdir()
    (folder / "metrics.csv").symlink_to("metrics.csv")


def a_pipe(folder):
    folder.mkdir()
    os.mkfifo(folder / "metrics.csv")


def binary_events(folder):
    write(folder, bytes(range(256)) * 40, "events.out.tfevents.1.host.1.0")


def empty_events(folder):
    write(folder, b"", "events.out.tfevents.1.host.1.0")


def events_that_are_a_directory(folder):
    (folder / "events.out.tfevents.1.host.1.0").mkdir(parents=True)


def events_of_another_tool(folder):
    write_events(folder, {"loss/train": 1.0, "a/b/c": 2.0})


OTHERS = [
    *(of_another_tool, binary, empty, without_a_header, a_directory, a_dangling_link, a_pipe),
    *(a_circle_of_links, binary_events, empty_events, events_that_are_a_directory),
    events_of_another_tool,
]


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("make", OTHERS)
def test_what_is_no_log_is_named_on_the_page_and_in_one_line_and_costs_no_run(
    make, tmp_path, capsys
):
    root = tmp_path / "logs"
    write(root / "good")
    make(root / "other")
    page, printed = to_page(root, tmp_path, capsys)
    assert nc1(root)[0] == [4, 2, 1]
    assert "1 run (logs/good)" in printed.out
    assert "other" in Page(page).text
    (line,) = printed.err.splitlines()
    assert "other" in line


@pytest.mark.parametrize("make", OTHERS)
def test_where_there_is_nothing_else_it_is_a_sentence_and_exit_status_2(make, tmp_path, capsys):
    make(tmp_path / "other")
    with pytest.raises(SystemExit) as exit_:
        command.main(["report", str(tmp_path), "--output", str(tmp_path / "page.html")])
    assert exit_.value.code == 2
    assert "give the folder" in capsys.readouterr().err


def test_without_tensorboard_tables_are_read_all_the_same(tmp_path, monkeypatch):
    write_events(tmp_path / "events")
    write(tmp_path / "csv")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    values, (remark,) = nc1(tmp_path)
    assert values == [4, 2, 1]
    assert "pip install 'lightning-neural-collapse[tensorboard]'" in remark


@pytest.mark.usefixtures("without_pictures")
@settings(FUZZ, max_examples=40)
@given(
    st.recursive(
        st.none() | st.floats() | st.text(max_size=3),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(sorted(STATE["quantities"][0])), x),
    ),
    st.sampled_from(sorted(STATE["quantities"][0])),
)
def test_no_description_of_measures_ends_in_a_traceback(tmp_path, value, field):
    write(tmp_path, text_of())
    state = json.loads(json.dumps(STATE))
    state["quantities"][0][field] = value
    write(tmp_path, json.dumps([state]), "lightning_nc.json")
    shown_or_a_sentence(tmp_path)


def test_a_figure_that_cannot_be_drawn_costs_no_other(tmp_path):
    write(tmp_path)
    state = json.loads(json.dumps(STATE))
    (row,) = (row for row in state["quantities"] if row["name"] == "nc1")
    row["chart"]["panel"]["references"] = [["$\\foo$", 1.0]]
    write(tmp_path, json.dumps([state]), "lightning_nc.json")
    page = Page(report_page(*read_runs(tmp_path)))
    assert "It could not be drawn: ValueError" in page.text
    assert 1.0 in page.values["nc/train/nc1", tmp_path.name]
