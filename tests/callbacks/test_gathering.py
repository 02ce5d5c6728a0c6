"""No process enters a collective of ours alone, whatever another one does before it comes."""

import random
import re
import threading
import time
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from lightning_nc import NeuralCollapse, Probe
from lightning_nc.callbacks import shared_pass
from lightning_nc.callbacks.moments import Moment
from lightning_nc.passes.agreement import Interrupted, MissedMeeting
from lightning_nc.passes.meeting import MeetingPlace, WaitingRoom
from tests import nets
from tests.callbacks import gatherings
from tests.processes import run_processes

EPOCHS = [0, 1, 2]
KINDS = ["EquiSeparation", "NeuralCollapse", "LocalElasticity"]
STAGES = [("fit", epoch) for epoch in EPOCHS] + [("validate", 2), ("test", 2)]


def meetings(waits, delays, name="a meeting"):
    """The answers of processes, played by threads, that come to a meeting after some seconds."""
    store, answers = dist.HashStore(), {}

    def come(rank):
        time.sleep(delays[rank])
        answers[rank] = MeetingPlace(store, rank, len(delays)).meet(name, waits[rank])

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(len(delays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[rank] for rank in range(len(delays))], store


def test_all_that_come_in_time_meet_and_leave_nothing_behind():
    started = time.monotonic()
    answers, store = meetings([60, 60, 60], [0.05, 0, 0.1])
    assert answers == [[], [], []]
    assert store.num_keys() == 0
    assert time.monotonic() - started < 30  # nobody waits for longer than the last one takes


def test_who_comes_too_late_gets_the_answer_of_those_who_waited():
    answers, store = meetings([0.1, 10, 0.1], [0, 0.4, 0])
    assert answers == [[1], [1], [1]]
    assert store.num_keys() == 0


@pytest.mark.parametrize("seed", range(20))
def test_processes_never_disagree_however_near_the_deadline_they_come(seed):
    draw = random.Random(seed)
    for _ in range(5):
        waits = [draw.choice([0.01, 0.02, 0.03]) for _ in range(3)]
        delays = [draw.uniform(0, 0.04) for _ in range(3)]
        (first, *others), _ = meetings(waits, delays)
        assert others == [first, first]


def test_meetings_of_other_names_do_not_meet():
    store = dist.HashStore()
    assert MeetingPlace(store, 0, 2).meet("one", 0.01) == [1]
    assert MeetingPlace(store, 1, 2).meet("another", 0.01) == [0]


def test_what_fails_while_a_process_waits_does_not_make_it_leave():
    def fail():
        raise RuntimeError("odd")

    assert MeetingPlace(dist.HashStore(), 0, 2).meet("one", 0.02, fail) == [1]


def test_a_process_that_has_other_things_to_do_waits_no_longer():
    store, started = dist.HashStore(), time.monotonic()
    assert MeetingPlace(store, 0, 2).meet("one", 60, interrupted=lambda: True) is None
    assert MeetingPlace(store, 1, 2).meet("one", 60) is None  # who comes later finds it called off
    assert time.monotonic() - started < 30
    assert store.num_keys() == 0


def test_a_slower_process_is_waited_for_as_long_as_it_goes_on():
    store, done = dist.HashStore(), []

    def work(rank, steps):
        with WaitingRoom(MeetingPlace(store, rank, 3), "one", seconds=0.5) as room:
            for sweep in (1, 2):
                for _ in range(steps):
                    time.sleep(0.1)
                    room.go_on()
                done.append(sweep)
                room.wait()

    threads = [threading.Thread(target=work, args=args) for args in ((0, 0), (1, 12), (2, 5))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [1, 1, 1, 2, 2, 2]
    assert store.num_keys() == 0


@pytest.mark.parametrize("left", [False, True])
def test_a_process_that_does_not_go_on_is_not_waited_for_forever(left):
    store, started = dist.HashStore(), time.monotonic()
    if left:
        with WaitingRoom(MeetingPlace(store, 1, 2), "one", 60):
            pass
    WaitingRoom(MeetingPlace(store, 0, 2), "one", 60 if left else 0.2).wait()
    assert 0.2 * (not left) <= time.monotonic() - started < 30


class Missing:
    """Measurements of the first of two processes, to which the other one may not come."""

    def __init__(self, monkeypatch, wait_seconds):
        self.store, self.arrived = dist.HashStore(), False
        monkeypatch.setattr(shared_pass, "meeting_place", lambda: MeetingPlace(self.store, 0, 2))
        self.record = NeuralCollapse(probe=Probe(wait_seconds=wait_seconds)).record

    def gather(self, epochs):
        moment, records = Moment("fit", (), epochs, None, 0), [self.record]
        trainer = SimpleNamespace(world_size=2)
        shared = shared_pass._Shared(trainer, None, records, records, moment, lambda: self.arrived)
        shared._gather()

    def waited(self, epochs):
        """For how many seconds the other process was waited for, as is told."""
        with pytest.raises(MissedMeeting) as told:
            self.gather(epochs)
        return float(re.findall(r"within (\S+) s", str(told.value))[0])


def test_a_process_that_never_comes_is_waited_for_half_as_long_each_time(monkeypatch):
    missing = Missing(monkeypatch, wait_seconds=0.4)
    assert [missing.waited(epochs) for epochs in range(3)] == [0.4, 0.2, 0.1]
    name = f"{missing.record.prefix} of run 0, fit, 3"
    other = threading.Thread(target=MeetingPlace(missing.store, 1, 2).meet, args=(name, 10))
    other.start()
    missing.gather(3)
    other.join()
    assert missing.waited(4) == 0.4  # it has come again
    missing.record.begin_run("fit", True)
    assert missing.waited(0) == 0.4  # and may come again


def test_a_signal_ends_the_wait_for_a_process(monkeypatch):
    missing, started = Missing(monkeypatch, wait_seconds=60), time.monotonic()
    missing.arrived = True
    with pytest.raises(Interrupted):
        missing.gather(0)
    assert time.monotonic() - started < 30
    assert missing.record.missed == 0


def test_a_signal_to_another_process_is_no_failure_of_this_one(monkeypatch):
    missing = Missing(monkeypatch, wait_seconds=60)
    name = f"{missing.record.prefix} of run 0, fit, 0"
    MeetingPlace(missing.store, 1, 2).meet(name, 60, interrupted=lambda: True)
    with pytest.raises(Interrupted):
        missing.gather(0)
    assert missing.record.missed == 0


pytestmark = [pytest.mark.filterwarnings(*nets.only_our_warnings)]


@pytest.fixture(scope="module", params=[2, 3])
def read(request):
    return run_processes(gatherings.run_readers, request.param)


@pytest.fixture(scope="module", params=[2, 3])
def alone(request):
    return run_processes(gatherings.run_alone, request.param)


@pytest.mark.slow
@pytest.mark.parametrize("case", gatherings.READERS)
def test_what_reads_metrics_on_one_process_keeps_none_waiting(case, read):
    for results in read:
        found = results[case]
        assert found["told"] == []
        assert found["measured"] == [(kind, *stage) for kind in KINDS for stage in STAGES]
        assert nets.same(found["weights"], results["alone"]["weights"])
        assert found["metrics"] == results["alone"]["metrics"]


@pytest.mark.slow
def test_callbacks_of_a_file_come_after_the_bar_and_wait_for_nobody(read):
    for results in read:
        found = results["ours from a file"]
        assert found["measured"] == [("NeuralCollapse", "fit", epoch) for epoch in EPOCHS]
        assert nets.same(found["weights"], results["alone"]["weights"])


@pytest.mark.slow
def test_metrics_that_nobody_reads_are_computed_when_they_are_complete(read):
    for results in read:
        late = results["completed late"]
        assert late["measured"] == [(kind, *stage) for kind in KINDS for stage in STAGES[:3]]
        assert late["metrics"] == results["completed late, alone"]["metrics"]
        assert late["metrics"]["metric"] > 100  # the last update is in it


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "missed", "absent"),
    [
        ("a collective of process 0", [1, 2], "process 0"),
        ("a collective of process 1", [1, 2], "process 1"),
        ("a process that is late", [1], "process 1"),
        ("a process that is slow", [], None),
        ("names gone", [1, 2], "process 0"),
    ],
)
def test_a_measurement_to_which_one_does_not_come_is_skipped_on_all(case, missed, absent, alone):
    for rank, results in enumerate(alone):
        found = results[case]
        assert [epoch for *_, epoch in found["measured"]] == [e for e in EPOCHS if e not in missed]
        assert nets.same(found["weights"], results["alone"]["weights"])
        if rank > 0 or not missed:
            assert found["told"] == []
            continue
        cause, *often = found["told"]
        assert f"{absent} did not reach this measurement within" in cause
        assert "Probe(wait_seconds=...)" in cause
        assert len(often) == (len(missed) > 1)
        skipped = f"{len(missed)} of {len(EPOCHS)} measurements were skipped"
        for text in often:
            assert f"{skipped}: {absent} did not reach this measurement within" in text


@pytest.mark.slow
def test_processes_wait_for_less_than_the_timeout_of_their_group(tmp_path):
    shown = run_processes(gatherings.run_with_short_timeout, 2, str(tmp_path), timeout=90)
    for found in shown:
        assert found["measured"] == [("NeuralCollapse", "fit", 0)]
    assert "process 0 did not reach this measurement within 4 s." in shown[0]["told"][0]


@pytest.mark.slow
def test_a_process_that_reads_for_longer_than_the_timeout_of_its_group_loses_no_run(tmp_path):
    shown = run_processes(gatherings.run_with_slow_reader, 2, str(tmp_path), timeout=90)
    for found in shown:
        assert found["measured"] == [("NeuralCollapse", "fit", 1)]
        assert found["told"] == []


def test_processes_meet_at_a_step_within_epochs_of_unequal_length():
    found = run_processes(gatherings.run_unequal, 2)
    shares = [0, 1 / 4, 2 / 4, 3 / 4, 1], [0, 1 / 5, 2 / 5, 3 / 5, 1]
    for (plain, trained), expected in zip(found, shares, strict=True):
        assert trained[0] == [("NeuralCollapse", "fit", epochs) for epochs in expected]
        assert nets.same(trained[1], plain[1])


@pytest.mark.slow
def test_without_a_meeting_a_bar_keeps_all_waiting():
    with pytest.raises(AssertionError, match="gave no result within"):
        run_processes(gatherings.run_without_meeting, 2, timeout=15)
