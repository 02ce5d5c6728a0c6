"""A history is a sequence of measurements, kept as numbers: nothing of them is lost."""

import copy
import math
import pickle
import re

import pytest
import torch

from lightning_nc.measures.history import History, of_stage
from lightning_nc.measures.measurement import Measurement
from lightning_nc.measures.rows import Growing, Rows
from lightning_nc.measures.saved_history import rows_of, state_of
from lightning_nc.measures.timeline import Timeline
from tests import nets


def measurement(epoch=0, values=None, arrays=None, counts=(3, 4), **others):
    values = {"nc/own/nc1": 1 / (1 + epoch)} if values is None else values
    counts, step = torch.tensor(counts), int(40 * epoch)
    return Measurement(epoch, step, values, arrays or {}, counts, 0.5, **others)


def history_of(*measurements):
    rows = Rows()
    for each in measurements:
        rows.append(each)
    return History(rows)


def assert_same(found, expected):
    assert vars(found).keys() == vars(expected).keys()
    assert list(found.values) == list(expected.values)
    assert nets.same(vars(found), vars(expected))
    assert type(found.epochs_completed) is type(expected.epochs_completed)
    for name, array in (expected.arrays | {"": expected.counts}).items():
        assert (found.arrays | {"": found.counts})[name].dtype == array.dtype


ARRAYS = [
    torch.tensor([[1.5, math.nan], [math.inf, -0.0]], dtype=torch.float64),
    torch.tensor([0.1, 2.0]),
    torch.tensor([1.5], dtype=torch.bfloat16),
    torch.tensor([2**62 + 1, -(2**62)]),
    torch.tensor([True, False]),
    torch.tensor(7),
    torch.zeros(0, 3),
    torch.tensor([1 + 2j, math.nan - 1j]),
    torch.tensor([[1 + 2j]], dtype=torch.complex128),
    torch.arange(12.0).reshape(3, 4).T,
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{list(array.shape)}")
def test_what_is_measured_comes_back_bit_for_bit(array):
    first = measurement(0.25, {"a": math.nan, "b": math.inf, "c": 1e-310}, {"array": array})
    found = history_of(first, measurement(1))[0]
    assert_same(found, first)


def test_each_measurement_keeps_its_own_keys_arrays_and_words():
    taken = [
        measurement(0),
        measurement(1, {"nc/own/nc1": 1.0, "nc/own/nc3": 2.0}, counts=(1, 2, 3)),
        measurement(2, {}, {"square": torch.eye(2)}, stage="validate"),
        measurement(3, {"nc/own/nc3": 5.0}, {"square": torch.eye(3)}, pooling={"a": "mean"}),
        measurement(4, probe={"seed": "1"}),
    ]
    history = history_of(*taken)
    for found, expected in zip(history, taken, strict=True):
        assert_same(found, expected)
    assert nets.same(history.series("nc/own/nc3"), [math.nan, 2.0, math.nan, 5.0, math.nan])
    assert history.series("step") == [0, 40, 80, 120, 160]
    assert history[1:3].series("step") == [40, 80]
    assert history.last_finite() == {"nc/own/nc1": 0.2, "nc/own/nc3": 5.0}


def test_the_measurements_of_a_stage_are_in_order():
    rows = Rows()
    for epoch, stage in enumerate(["validate", "fit", "test", "fit", "fit"]):
        rows.append(measurement(epoch, stage=stage))
    assert of_stage(rows, "fit").series("epochs_completed") == [1, 3, 4]
    assert of_stage(rows, "fit", until=3).series("epochs_completed") == [1, 3]
    assert [m.step for m in of_stage(rows, "fit", until=2)] == [40]
    assert list(of_stage(rows, "measure")) == []


def test_it_is_a_sequence():
    taken = [measurement(epoch, {"a": math.nan}, {"b": torch.ones(2)}) for epoch in range(5)]
    history = history_of(*taken)
    assert (len(history), bool(history), bool(history_of())) == (5, True, False)
    assert history[-1] is taken[-1]
    assert [m.step for m in history[1:-1]] == [40, 80, 120]
    assert [m.step for m in reversed(history)] == [160, 120, 80, 40, 0]
    for other in (taken, tuple(history), history_of(*taken)):
        assert history == other
    assert history != taken[:-1]
    assert history != [*taken[:-1], measurement(4, {"a": 1.0}, {"b": torch.ones(2)})]
    assert history != [0] * 5
    assert history_of() == []
    assert history != "abcde"
    for place in (5, -6):
        with pytest.raises(IndexError):
            history[place]
    for again in (pickle.loads(pickle.dumps(history)), copy.deepcopy(history)):
        assert again == history
    assert repr(history).startswith("<History of ")


def test_a_rounded_value_does_not_look_like_the_exact_one():
    rows = Rows()
    for accuracy in (0.5, 0.99996, 0.9999996, 1.0):
        rows.append(Measurement(1, 1, {"nc/p/accuracy": accuracy}, {}, torch.ones(2), 0.1))
    history = History(rows)
    shown = [repr(each).rpartition("=")[2] for each in history]
    assert shown == ["0.5>", "1.000>", "1.000>", "1>"]
    in_full = [re.findall(r"<td[^>]*>([^<]*)</td>", each._repr_html_()) for each in history]
    assert in_full == [["0.5"], ["0.99996"], ["1.00000"], ["1"]]
    table = re.findall(r"<td[^>]*>([^<]*)</td>", history._repr_html_())
    assert table == [each for (each,) in in_full]


def test_large_arrays_are_those_of_the_last_measurement():
    arrays = {
        "small": torch.ones(1000),
        "large": torch.ones(1001),
        "sparse": torch.eye(2).to_sparse(),
    }
    rows = Rows()
    for epoch in range(2):
        rows.append(measurement(epoch, arrays=arrays))
    before, last = History(rows)
    assert list(before.arrays) == ["small"]
    assert list(last.arrays) == list(arrays)
    saved = state_of(rows)
    for damaged, kept in ((None, [*arrays]), (0, [*arrays]), (1, ["small"])):
        state = copy.deepcopy(saved)
        if damaged is not None:
            state["numbers"].view(torch.float64)[rows.starts[damaged] + 1] = 0.5  # a step
        restored, lost = rows_of(state)
        assert lost == ([] if damaged is None else ["1 of 2 measurements"])
        assert list(History(restored)[-1].arrays) == kept


def with_large_arrays():
    row = torch.linspace(0, 1, 2000, dtype=torch.float64)
    arrays = {"wide": row.reshape(20, 100).T, "half": row.half(), "few": torch.eye(2).to_sparse()}
    rows = Rows()
    rows.append(measurement(arrays={"small": row[:3]}))
    rows.append(measurement(1, arrays=arrays))
    return rows


def test_a_saved_history_has_no_float64_and_comes_back_bit_for_bit():
    before = with_large_arrays()
    state = state_of(before)
    tensors = [*state["large"].values(), state["numbers"], state["layout_of"]]
    assert torch.float64 not in {each.dtype for each in tensors}  # which Apple's MPS cannot load
    rows, lost = rows_of(pickle.loads(pickle.dumps(state)))
    assert lost == []
    for found, expected in zip(History(rows), History(before), strict=True):
        assert_same(found, expected)


def test_a_history_that_the_first_release_saved_is_read():
    before = with_large_arrays()
    state, last = state_of(before), History(before)[-1]
    state["numbers"] = state["numbers"].view(torch.float64)
    state["large"]["wide"] = last.arrays["wide"]
    del state["large_in_float64"]
    rows, lost = rows_of(state)
    assert lost == []
    assert_same(History(rows)[-1], last)


def long_rows(length, most=4, rows=None):
    """Rows up to a length, of few measurements with arrays; a validation now and then."""
    rows = Rows(most=most) if rows is None else rows
    for epoch in range(len(rows), length):
        arrays = {"small": torch.full((3,), epoch), "large": torch.ones(1001)}
        stage = "validate" if epoch % 5 == 3 else "fit"
        rows.append(measurement(epoch, arrays=arrays, stage=stage))
    return rows


@pytest.mark.parametrize(
    ("length", "kept"),
    [(4, [0, 1, 2, 3]), (5, [0, 2, 4]), (8, [0, 2, 4, 6, 7]), (9, [0, 4, 8]), (11, [0, 4, 8, 10])],
)
def test_of_a_long_history_few_measurements_keep_arrays_and_all_their_values(length, kept):
    rows = long_rows(length)
    history = History(rows)
    assert [place for place, each in enumerate(history) if "small" in each.arrays] == kept
    assert all(history[place].arrays["small"].tolist() == [place] * 3 for place in kept)
    assert [place for place, each in enumerate(history) if "large" in each.arrays] == [length - 1]
    for place, each in enumerate(history):
        assert_same(each, measurement(place, arrays=each.arrays, stage=each.stage))
    fitted = [place for place in range(length) if place % 5 != 3]
    assert of_stage(rows, "fit").series("epochs_completed") == fitted


def test_what_arrays_are_kept_does_not_depend_on_where_a_run_was_resumed():
    for length in range(1, 20):
        state = copy.deepcopy(state_of(long_rows(length, most=4)))
        rows, lost = rows_of(state)
        rows.most = 4
        assert lost == []
        assert rows.begins(long_rows(20))
        assert long_rows(length).begins(rows)
        assert not long_rows(length + 1).begins(rows)
        resumed, expected = long_rows(20, rows=rows), long_rows(20)
        for one, other in zip(History(resumed), History(expected), strict=True):
            assert_same(one, other)


def test_the_arrays_of_a_history_are_bounded():
    rows, cosines = Rows(), {name: torch.eye(30).double() for name in ("means", "weights")}
    sizes = []
    for epoch in range(8000):
        rows.append(measurement(epoch, arrays=cosines))
        sizes.append(8 * len(rows.numbers))
    assert max(sizes) < 15.5e6  # 1,000 measurements with 1,800 numbers, 8,000 with a few
    assert len(rows.series("nc/own/nc1")) == 8000


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_measurement_that_is_interrupted_is_not_there(write, monkeypatch):
    rows, calls = Rows(), []
    rows.append(measurement(0))
    keep = Growing.write

    def interrupted(self, *arguments):
        keep(self, *arguments)
        calls.append(self)
        if len(calls) == write:
            raise KeyboardInterrupt

    monkeypatch.setattr(Growing, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows.append(measurement(1, {"other": 1.0}, stage="test"))
    assert History(rows) == [measurement(0)]
    rows.append(measurement(2))
    assert History(rows) == of_stage(rows, "fit") == [measurement(0), measurement(2)]
    assert list(of_stage(rows, "test")) == []


def test_a_history_that_is_held_does_not_grow_with_what_is_measured_later():
    rows = Rows()
    rows.append(measurement(0))
    history, fitted = History(rows), of_stage(rows, "fit")
    rows.append(measurement(1))
    assert len(history) == len(fitted) == len(fitted.series("nc/own/nc1")) == 1
    assert len(History(rows)) == 2


def test_a_timeline_of_a_history_is_that_of_its_measurements():
    values = [{"nc/own/nc1": 1.0, "nc_layers/own/a": 2.0, "nc_layers/own/b": 3.0}, {}]
    values.append({"nc_layers/own/b": 4.0, "nc_layers/own/c": 5.0, "nc/own/nc1": 6.0})
    taken = [measurement(epoch, each) for epoch, each in enumerate(values)]
    lists, rows = (Timeline("nc", "own", each) for each in (taken, history_of(*taken)))
    for each in (lists, rows):
        assert each.epochs == [0, 1, 2]
        assert nets.same(each.over_epochs("nc1"), [1.0, math.nan, 6.0])
        assert each.value("nc1") == 6
        assert math.isnan(each.value("nc2"))
        assert each.layers == ["b", "c"]
        expected = [[3.0, math.nan], [math.nan, math.nan], [4.0, 5.0]]
        assert nets.same(each.layers_over_epochs(), expected)
