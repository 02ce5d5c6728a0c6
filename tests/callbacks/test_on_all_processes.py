"""Callbacks that some processes lack, or have with other options, cost themselves alone."""

from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch.distributed as dist

from lightning_nc import NeuralCollapse, Probe
from lightning_nc.callbacks import on_all_processes
from lightning_nc.passes.meeting import MeetingPlace
from tests import nets
from tests.callbacks import other_callbacks
from tests.processes import run_processes

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

EPOCHS = [0, 1, 2]
LEFT_OUT = "EquiSeparation on 'train' is left out of this run: process {}"
WAY_OUT = "Give all processes the same callbacks; they measure together, and process 0 logs."
DIFFERENT = "options differ. Give every process the same dataset, seeds and callbacks."


@pytest.fixture(scope="module")
def of_two():
    return run_processes(other_callbacks.run_all, 2)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*other_callbacks.CASES, other_callbacks.AFTER_A_FAILURE])
def test_training_is_that_without_callbacks_and_nobody_waits(case, of_two):
    for shown in of_two:
        assert nets.same(shown[case]["weights"], shown["none"]["weights"])
        assert shown[case]["seconds"] < 30  # less than a process waits for another


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "teller", "told"),
    [
        ("one more on the first", 0, "1 does not have it"),
        (other_callbacks.AFTER_A_FAILURE, 0, "1 does not have it"),
        ("one more on the second", 1, "0 does not have it"),
        ("another schedule", 0, "1 has it with other options than process 0"),
    ],
)
def test_a_callback_that_some_do_not_have_costs_itself_and_one_sentence(case, teller, told, of_two):
    for rank, shown in enumerate(of_two):
        measured = shown[case]["measured"]
        assert measured.pop("EquiSeparation", []) == []
        assert measured == {"NeuralCollapse": EPOCHS}
        expected = [f"{LEFT_OUT.format(told)}. {WAY_OUT}"] if rank == teller else []
        assert shown[case]["told"] == expected


@pytest.mark.slow
def test_callbacks_of_the_first_process_alone_are_left_out_at_once(of_two):
    first, second = (shown["on the first alone"] for shown in of_two)
    assert first["measured"] == {"NeuralCollapse": [], "EquiSeparation": []}
    assert [WAY_OUT in text for text in first["told"]] == [True, True]
    assert second["told"] == []


@pytest.mark.slow
@pytest.mark.parametrize("case", ["the same", "the same again"])
def test_callbacks_that_all_have_are_measured_also_after_runs_in_which_they_had_not(case, of_two):
    for shown in of_two:
        assert shown[case]["measured"] == {"NeuralCollapse": EPOCHS, "EquiSeparation": EPOCHS}
        assert shown[case]["told"] == []


@pytest.mark.slow
def test_options_that_decide_how_much_is_reduced_are_compared(of_two):
    first, second = (shown["features kept by one"] for shown in of_two)
    assert first["measured"] == second["measured"] == {"EquiSeparation": []}
    assert [WAY_OUT in text for text in first["told"]] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["other samples compared", "other outputs compared"])
def test_options_of_a_measure_that_differ_are_no_measurement(case, of_two):
    for rank, shown in enumerate(of_two):
        assert shown[case]["measured"] == {"LocalElasticity": []}
        assert [DIFFERENT in text for text in shown[case]["told"]] == [True, False][: 2 - 2 * rank]


@pytest.mark.slow
def test_a_process_that_is_done_with_an_evaluation_does_not_pass_for_one_without_callbacks(of_two):
    assert [shown[other_callbacks.EVALUATED] for shown in of_two] == [[], []]


@pytest.mark.slow
def test_one_that_must_not_fail_stops_the_process_that_has_it():
    with pytest.raises(AssertionError, match="EquiSeparation on 'train' is left out"):
        run_processes(other_callbacks.run_raising, 2, timeout=60)


@pytest.mark.parametrize("differs", [False, True])
def test_comparing_hundreds_of_processes_takes_two_requests(differs, monkeypatch):
    store = dist.HashStore()
    for rank in range(500):
        store.set(str(rank), "other options" if differs and rank == 7 else "options")
    counted = Mock(wraps=store)
    place = SimpleNamespace(part=lambda _: MeetingPlace(counted, rank=3, world=500))
    monkeypatch.setattr(on_all_processes, "meeting_place", lambda: place)
    record = NeuralCollapse().record
    record.announced = True
    trainer = SimpleNamespace(world_size=500, global_rank=3, is_global_zero=False)
    on_all_processes.leave_out_others(trainer, [record])
    assert record.left_out == differs
    assert len(counted.method_calls) == 2


def each_process(step, records, monkeypatch, store):
    """Do a step of two processes, one after the other."""
    for rank, record in enumerate(records):
        place = partial(MeetingPlace, store, rank, 2)
        monkeypatch.setattr(on_all_processes, "meeting_place", place)
        step(SimpleNamespace(world_size=2, global_rank=rank, is_global_zero=rank == 0), record)


def look(trainer, record):
    on_all_processes.leave_out_others(trainer, [record])


def compare(records, monkeypatch):
    store = dist.HashStore()
    each_process(on_all_processes.announce, records, monkeypatch, store)
    each_process(look, records, monkeypatch, store)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        (lambda rank: {"figures": bool(rank)}, True),
        # how a process reads and waits is its own affair
        (lambda rank: {"probe": Probe(num_workers=rank)}, True),
        (lambda rank: {"probe": Probe(wait_seconds=5 + rank)}, True),
        # objects have addresses, which differ; what is in them is compared when it is measured
        (lambda _: {"probe": Probe(nets.vectors(), "own", forward=lambda net, x: net(x))}, True),
        (lambda rank: {"probe": Probe(seed=rank)}, False),
        (lambda rank: {"probe": Probe(batch_size=3 + rank)}, False),
        (lambda rank: {"epochs": [0, 2 + rank]}, False),
        (lambda rank: {"when": ["train_epoch_end", "validation_end"][rank]}, False),
    ],
)
def test_options_may_differ_if_other_processes_need_not_know_them(options, same, monkeypatch):
    records = [NeuralCollapse(**options(rank)).record for rank in (0, 1)]
    compare(records, monkeypatch)
    assert [record.left_out for record in records] == [not same] * 2


def test_a_store_that_is_gone_stops_nothing_and_leaves_out_nobody(monkeypatch):
    record, store = NeuralCollapse().record, Mock()
    place = MeetingPlace(store, rank=0, world=2)
    monkeypatch.setattr(MeetingPlace, "part", lambda place, _: place)
    monkeypatch.setattr(on_all_processes, "meeting_place", lambda: place)
    trainer = SimpleNamespace(world_size=2, global_rank=0, is_global_zero=True)
    on_all_processes.announce(trainer, record)
    for request in (store.set, store.check, store.get, store.multi_get, store.delete_key):
        request.side_effect = RuntimeError("the process that had it has ended")
    on_all_processes.leave_out_others(trainer, [record])
    on_all_processes.withdraw(trainer, record)
    on_all_processes.announce(trainer, record)
    assert (record.left_out, store.set.call_count, store.delete_key.call_count) == (False, 2, 1)


def test_a_callback_that_is_to_stop_some_processes_alone_stops_these_at_once(monkeypatch):
    """Later it would stop them in a measurement, and the others would wait."""
    records = [NeuralCollapse(on_error=way).record for way in ("warn", "raise")]
    with pytest.raises(ValueError, match="process 1 has it with other options than process 0"):
        compare(records, monkeypatch)
    assert records[0].left_out
