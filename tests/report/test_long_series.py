"""Long series are thinned, in bounded memory."""

import tracemalloc

import pytest

from lightning_nc.report import thinning
from lightning_nc.report.runs import read_runs
from tests import nets
from tests.report.logs import nc1, text_of, write, write_events

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


@pytest.mark.parametrize("logger", ["csv", "events"])
def test_a_long_series_is_thinned_and_the_page_says_so(logger, tmp_path, monkeypatch):
    monkeypatch.setattr(thinning, "MOST", 5)
    for steps in range(1, 30):
        folder = tmp_path / str(steps)
        if logger == "csv":
            write(folder, text_of(rows=[[t, t, 0, 1.0, t] for t in range(steps)]))
        else:
            write_events(folder, steps=steps)
        (run,), remarks = read_runs(folder)
        epochs = run.series["nc", "train"].epochs
        every = 1 if len(epochs) == 1 else epochs[1]
        assert epochs == sorted({*range(0, steps, int(every)), steps - 1})
        assert min(steps, 3) <= len(epochs) <= 6
        said = f"nc/train: of {steps} measurements, one in {every:g} and the last are shown"
        assert (said in "".join(remarks)) == (every > 1)


@pytest.mark.usefixtures("without_pictures")
def test_a_table_of_many_rows_takes_little_memory(tmp_path):
    rows = "".join(f"0,{t / 100},0,1.0,{t}\r\n" for t in range(20_000))
    write(tmp_path, text_of(rows=[]) + rows)
    tracemalloc.start()
    try:
        values, _ = nc1(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(values) <= thinning.MOST + 1
    assert peak < 4e6
