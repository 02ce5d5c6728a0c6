"""What a measurement, a checkpoint and a load cost does not grow with the history."""

import copy
import gc
import io
import tracemalloc

import numpy as np
import pytest
import torch

from lightning_nc import EquiSeparation
from lightning_nc.callbacks.moments import Moment
from lightning_nc.measures.history import History
from lightning_nc.measures.measure import Evaluation
from lightning_nc.measures.rows import Growing
from lightning_nc.measures.together import Found
from lightning_nc.passes.request import Answer

LAYERS = {f"layers.{i}": 1.0 + i for i in range(50)}
COUNTS = torch.full((10,), 100)


def measure(callback, epoch):
    law = {"rho": 0.5, "pearson_r": -0.9, "half_life": 1.0, "total": 0.1}
    arrays = {"fuzziness": torch.arange(50.0).double(), "of_classes": torch.ones(50, 50)}
    moment = Moment("fit", ("train_epoch_end",), epoch, None, 10 * epoch)
    assert callback.record.due(moment)
    evaluation = Evaluation(law, LAYERS, arrays)
    found = Found(callback.measure, Answer({}, None, COUNTS), evaluation)
    callback.record.add(found, moment, 0.1)
    assert not callback.record.due(moment)
    return callback.record.timeline()


def with_history_of(length):
    callback = EquiSeparation(figures=False)
    callback.record.begin_run("fit", fresh=True)
    for epoch in range(length):
        measure(callback, epoch)
    return callback


def objects_in(value):
    """How many objects a nested state consists of; a tensor is one, whatever its size."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(objects_in, inside))


@pytest.fixture(scope="module")
def long():
    return with_history_of(5000)


@pytest.fixture(scope="module")
def short():
    return with_history_of(50)


def test_a_state_has_as_many_objects_whatever_the_length(short, long):
    one, other = short.state_dict(), long.state_dict()
    # the layout of measurements that have lost their arrays comes with the first of them
    assert objects_in(one) < 200
    assert objects_in(other) < 2 * objects_in(one)
    assert len(other["history"]["layout_of"]) == 100 * len(one["history"]["layout_of"])
    assert len(other["history"]["numbers"]) < 100 * len(one["history"]["numbers"])


def test_making_a_state_copies_no_number(long):
    tracemalloc.start()  # of NumPy's arrays, too
    try:
        state = long.state_dict()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    rows = long.record.rows
    assert state["history"]["numbers"].data_ptr() == rows.numbers.ctypes.data


def test_what_is_written_is_the_numbers_and_little_else(long):
    file = io.BytesIO()
    torch.save(long.state_dict(), file)
    numbers = 8 * len(long.record.rows.numbers) + 8 * len(long.history)
    assert len(file.getvalue()) < 1.01 * numbers + 50_000
    file.seek(0)
    loaded = EquiSeparation(figures=False)
    loaded.record.begin_run("fit", fresh=True)
    loaded.load_state_dict(copy.deepcopy(torch.load(file, weights_only=True)))
    assert loaded.history == long.history
    assert list(loaded.history[-1].arrays) == ["fuzziness", "of_classes"]


def test_what_is_measured_later_does_not_change_a_state(short):
    callback = EquiSeparation(figures=False)
    callback.record.begin_run("fit", fresh=True)
    callback.load_state_dict(short.state_dict())
    state = callback.state_dict()
    before = copy.deepcopy(state)
    for epoch in range(50, 60):
        measure(callback, epoch)
    for name in ("layout_of", "numbers"):
        assert torch.equal(state["history"][name], before["history"][name])
    assert len(short.history) == 50
    assert callback.history[:50] == short.history


def test_measuring_touches_no_earlier_measurement(long, monkeypatch):
    callback = copy.deepcopy(long)
    read = []
    rows = type(callback.record.rows)
    monkeypatch.setattr(rows, "series", lambda *_: read.append("all"))
    keep = rows._read
    monkeypatch.setattr(rows, "_read", lambda self, place: read.append(place) or keep(self, place))
    timeline = measure(callback, 5000)
    assert isinstance(timeline.measurements, History)
    assert len(timeline.measurements) == 5001
    assert read == []
    callback.state_dict()
    assert read == []


def test_measurements_leave_no_objects_for_the_garbage_collector():
    callback = with_history_of(50)
    gc.collect()
    before = len(gc.get_objects())
    for epoch in range(50, 550):
        measure(callback, epoch)
    gc.collect()
    assert len(gc.get_objects()) - before < 50


def test_appending_copies_each_number_a_few_times_on_average():
    column, moves = Growing(np.zeros(0)), 0
    for start in range(0, 30_000, 3):
        buffer = column.buffer
        column.write(start, np.ones(3))
        moves += column.buffer is not buffer
    assert moves < 40
    assert column.buffer[:30_000].all()
