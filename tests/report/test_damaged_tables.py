"""Tables that are damaged: the page says what cannot be read, and shows the rest."""

import html
import math
import threading
import time

import pytest
from hypothesis import given

from lightning_nc.report import csv_rows
from lightning_nc.report.page import report_page
from lightning_nc.report.runs import read_runs
from tests import nets
from tests.report.logs import (
    FUZZ,
    HEADER,
    ROWS,
    damaged,
    damages,
    nc1,
    shown_or_a_sentence,
    text_of,
    write,
)
from tests.report.pages import Page

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

WHOLE = text_of().encode()


def cut_off(text):
    return text[:-9]


def cut_off_between_digits(text):
    return text[: text.rindex(",") + 2]


def a_word_for_a_number(text):
    return text.replace("1.0", "none")


def a_field_of_more_than_the_csv_module_reads(text):
    return text.replace("1.0", "1" * 131_073)


def of_another_width(text):
    return text.replace("1.0,", "1.0,0,0,")


def twice_in_one_file(text):
    return text.replace("1.0,", "x,") + text.replace("step", "other")


@pytest.mark.parametrize(
    ("damage", "kept", "said"),
    [
        (cut_off, [4, 2], "the last row, which has no end, is left out"),
        (cut_off_between_digits, [4, 2], "the last row, which has no end, is left out"),
        (a_word_for_a_number, [4, 2, None], "line 4, nc/train/nc1 is 'none': a value that is no"),
        (a_field_of_more_than_the_csv_module_reads, [4, 2], "line 4: a row that cannot be read"),
        (of_another_width, [4, 2], "line 4: a row that has not as many columns as the header"),
        (twice_in_one_file, [4, 2, None], "line 5: another header; what follows is left out"),
    ],
)
def test_a_damaged_row_of_a_table_is_named_and_the_others_are_shown(damage, kept, said, tmp_path):
    write(tmp_path, damage(text_of()))
    values, remarks = nc1(tmp_path)
    assert [None if math.isnan(value) else value for value in values] == kept
    assert any(f"metrics.csv: {said}" in each or said in each for each in remarks)
    assert said in html.unescape(report_page(*read_runs(tmp_path)))


def test_whole_tables_are_shown_without_a_word(tmp_path):
    for text in (text_of(), text_of() + text_of(), "\ufeff" + text_of(), text_of() + "\r\n\r\n"):
        write(tmp_path, text)
        assert nc1(tmp_path) == ([4, 2, 1], [])


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        (2, "nan", "a number of failures that is none"),
        (2, "many", "no number"),
        (2, "inf", "a number of failures that is none"),
        (2, -1, "a number of failures that is none"),
        (1, "nan", "a measurement at no epoch"),
        (1, "inf", "a measurement at no epoch"),
        (1, "soon", "no number"),
    ],
)
def test_a_number_that_cannot_be_is_named(column, cell, said, tmp_path):
    rows = [list(row) for row in ROWS]
    rows[1][column] = cell
    write(tmp_path, text_of(rows=rows))
    values, remarks = nc1(tmp_path)
    assert values == ([4, 2, 1] if column == 2 else [4, 1])
    (remark,) = remarks
    assert said in remark
    assert HEADER[column] in remark


def test_a_column_that_comes_twice_is_not_known(tmp_path):
    write(tmp_path, text_of([*HEADER[:-1], "nc/train/nc1"]))
    runs, (remark,) = read_runs(tmp_path)
    assert "nc1" not in runs[0].series["nc", "train"].values
    assert "nc/train/nc1" in remark


def test_a_line_without_an_end_takes_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "_LONGEST", 1000)
    write(tmp_path, text_of() + "x" * 5000 + "\r\n" + text_of())
    values, (remark,) = nc1(tmp_path)
    assert values == [4, 2, 1]
    assert "over 1,000 characters" in remark


def test_a_table_that_is_written_meanwhile_is_shown_up_to_a_whole_row(tmp_path):
    write(tmp_path, text_of())
    stop = threading.Event()

    def go_on():
        with (tmp_path / "metrics.csv").open("a", buffering=1) as file:
            for step in range(3, 1500):
                if stop.is_set():
                    return
                file.write(f"{step},{step},0,{1 / step},")
                file.flush()
                time.sleep(0.001)
                file.write(f"{step}\r\n")

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        for _ in range(5):
            values, remarks = nc1(tmp_path)
            assert values[:3] == [4, 2, 1]
            assert not any(map(math.isnan, values))
            assert all("the last row, which has no end" in each for each in remarks)
    finally:
        stop.set()
        writer.join()


@pytest.mark.usefixtures("without_pictures")
@FUZZ
@given(damages(WHOLE))
def test_no_table_ends_in_a_traceback(tmp_path, edits):
    write(tmp_path, damaged(WHOLE, edits))
    shown_or_a_sentence(tmp_path)


def test_numbers_of_any_size_give_a_page(tmp_path):
    header = [*("epoch", "separation/train/epochs_completed"), "separation/train/rho"]
    header += ["separation/train/total", *(f"separation_layers/train/{name}" for name in "ab")]
    rows = [[0, -1e308, 0.5, 1e308, 5e-324, math.inf], [math.nan, 1e308, -1, -1e308, 0, math.nan]]
    rows += [[t, t, 0.5, 0.5, math.inf, 1] for t in range(3)]
    write(tmp_path, text_of(header, rows))
    assert Page(report_page(*read_runs(tmp_path))).text
