"""Whatever fails in a measurement, on whichever process, training goes on as it would have."""

import logging
import os
import pickle
import re
import warnings
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning
import torch
from pytorch_lightning.loggers import CSVLogger

from lightning_nc import EquiSeparation
from lightning_nc.callbacks.messages import tell
from tests import nets
from tests.callbacks import faults
from tests.processes import run_processes

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

MEASURED = ["buffers", "vote", "sums", "vote", "sums"]
FIGURES = 4 * 2  # of EquiSeparation, NeuralCollapse, MinorityCollapse and NextTokenLaw
ON = {"process 0": (0,), "process 1": (1,), "both": (0, 1)}

# a fault, its processes, and on_error
MISSED = faults.FAULTS | faults.ELASTIC
SKIPPED = [(name, where, "warn") for name in MISSED for where in ON.values()]
SKIPPED += [(name, (1,), "warn") for name in faults.DIFFERENCES]
POOLED = [(name, where, "warn") for name in faults.POOLED for where in ON.values()]
UNLOGGED = [(name, (0,), "warn") for name in faults.UNLOGGED]
UNLOGGED += [(name, (1,), "warn") for name in ("a logger", "a drawing")]
UNSHOWN = [(name, (0,), "warn") for name in faults.UNSHOWN]
STOPPED = [
    (name, where, "raise")
    for name in (
        "a sample at the first look",
        "the network in the second sweep",
        "a source",
        "a pool",
        "a pool in the second sweep",
        "the network, gradients compared",
    )
    for where in ON.values()
]
STOPPED += [("other labels", (1,), "raise")]
EVALUATED = [
    (name, (0, 1), on_error) for name in faults.EVALUATED for on_error in ("warn", "raise")
]
LASTING = [(name, where, "warn") for name in faults.LASTING for where in ON.values()]
VOTELESS = [("the network", (1,), "raise without a vote")]


def id_of(case):
    return "-".join([case[0], "both" if len(case[1]) == 2 else f"process {case[1][0]}"])


def in_two_processes(folder, cases):
    """What each process has to show, by case; or how a case ended all, after which others go on."""
    shown = {}
    while len(shown) < len(cases):
        left, place = cases[len(shown) :], folder / str(len(shown))
        place.mkdir()
        try:
            run_processes(faults.run_all, 2, str(place), left)
            ended = None
        except AssertionError as error:
            ended = str(error)
        for number, case in enumerate(left):
            files = [place / f"shown_{number}_{rank}" for rank in range(2)]
            if not all(file.exists() for file in files):
                assert ended is not None
                shown[case] = ended
                break
            shown[case] = [pickle.loads(file.read_bytes()) for file in files]
    return shown


@pytest.fixture(scope="module")
def all_shown(request, tmp_path_factory):
    items = [item for item in request.session.items if "all_shown" in item.fixturenames]
    cases = list(dict.fromkeys(item.callspec.params["case"] for item in items))
    return in_two_processes(tmp_path_factory.mktemp("cases"), cases)


@pytest.fixture
def shown_by_two(all_shown, case):
    if isinstance(all_shown[case], str):
        pytest.fail(all_shown[case])
    return all_shown[case]


def of_each_callback(shown, value):
    return dict.fromkeys(shown["failures"], value)


def failures_of(shown, fault):
    """All callbacks of a pass fail with it; what one alone asks for or makes is its own failure."""
    first, *others = shown["failures"]
    alone = fault in (faults.EVALUATED | faults.POOLED).values()
    return {first: 1} | dict.fromkeys(others, 0 if alone else 1)


def assert_left_alone(shown):
    """What holds after every fault."""
    assert shown["as it was"]
    assert all(shown["as it was"])
    assert all(shown["in step"])


def assert_skipped(shown, fault, first, process):
    """One measurement is missing, of which the first process tells once."""
    assert shown["raised"] is None
    assert_left_alone(shown)
    epochs = [epoch for epoch in (0, 1, 2) if epoch != fault.epoch]
    assert shown["failures"] == of_each_callback(shown, 1)
    assert shown["history"] == of_each_callback(shown, epochs)
    assert shown["monitored"] == of_each_callback(shown, 1)
    assert shown["same weights"]
    if not first:
        assert shown["warned"] == []
        return
    assert shown["logged"] == of_each_callback(shown, [float(e >= fault.epoch) for e in (0, 1, 2)])
    (told,) = shown["warned"]
    start = f"{shown['names']} skipped the measurement on 'probe' after {fault.epoch} epochs; "
    assert told.startswith(start)
    assert told.removeprefix(start).startswith(said_by(fault, process))


def assert_skipped_by_the_first_alone(shown, fault, first, process):
    """One measurement of one callback is missing, and none of the others."""
    own, *others = shown["failures"]
    names = shown["names"].split(" and ")
    alone = {key: {own: shown[key][own]} for key in ("failures", "history", "monitored", "logged")}
    assert_skipped(shown | alone | {"names": names[0]}, fault, first, process)
    for other in others:
        assert shown["failures"][other] == 0
        assert shown["history"][other] == [0, 1, 2]


def assert_told_once(shown, fault, first, process):
    """All measurements are missing; the first process tells why at first, and how often at last."""
    assert shown["raised"] is None
    assert_left_alone(shown)
    assert shown["same weights"]
    assert shown["failures"] == of_each_callback(shown, 3)
    assert shown["history"] == of_each_callback(shown, [])
    assert shown["monitored"] == of_each_callback(shown, 3)
    if not first:
        assert shown["warned"] == []
        return
    told, often = shown["warned"]
    start = f"{shown['names']} skipped the measurement on 'probe' after 0 epochs; "
    assert told.startswith(start + said_by(fault, process))
    assert told.endswith(" s. Try again")
    (cause,) = re.findall(r"; (.* s)\. Try again", told)
    assert often == f"{shown['names']} on 'probe': 3 of 3 measurements were skipped: {cause}."


def said_by(fault, process):
    return (
        fault.says
        if fault in faults.DIFFERENCES.values()
        else f"process {process} raised {fault.says}"
    )


def calls_of(fault):
    """How often loggers and figures are asked for something that fails."""
    if fault.place == "log":
        return 1  # in one row, what the callbacks of a pass have measured
    return FIGURES if fault.place == "image" else len(nets.GEOMETRY)


def told_of(fault):
    """One warning in a run; what fails in a measure concerns each callback by itself."""
    return [f"Could not {fault.says}"] * (len(nets.GEOMETRY) if fault.place == "events" else 1)


def assert_complete(shown, warnings):
    """No measurement is missing, of which loggers did not get everything."""
    assert shown["raised"] is None
    assert_left_alone(shown)
    assert shown["failures"] == of_each_callback(shown, 0)
    assert shown["history"] == of_each_callback(shown, [0, 1, 2])
    assert shown["warned"] == warnings
    assert shown["same weights"]


@pytest.mark.parametrize("name", MISSED)
def test_a_fault_is_skipped_by_one_process(name):
    fault = faults.ALL[name]
    assert_skipped(faults.run(fault), fault, first=True, process=0)


@pytest.mark.parametrize("name", faults.EVALUATED | faults.POOLED)
def test_what_one_measure_alone_asks_for_or_makes_costs_its_siblings_nothing(name):
    fault = faults.ALL[name]
    assert_skipped_by_the_first_alone(faults.run(fault), fault, first=True, process=0)


@pytest.mark.parametrize("name", faults.UNLOGGED)
def test_what_cannot_be_logged_costs_a_warning_per_cause_and_nothing_else(name):
    fault = faults.UNLOGGED[name]
    shown = faults.run(fault)
    assert_complete(shown, told_of(fault))
    assert shown["struck"] == calls_of(fault)


@pytest.mark.parametrize("name", faults.LASTING)
def test_a_cause_that_lasts_is_told_once_and_how_often_at_the_end(name):
    fault = faults.LASTING[name]
    assert_told_once(faults.run(fault), fault, first=True, process=0)


def test_a_logger_that_fails_with_another_number_each_time_costs_one_warning():
    (fault,) = faults.UNLOGGED_LASTING.values()
    shown = faults.run(fault)
    (told,) = shown["warned"]
    assert told.startswith(f"Could not {fault.says}")
    assert shown["struck"] == 3


@pytest.mark.parametrize("name", faults.UNSHOWN)
def test_a_display_that_fails_costs_nothing(name):
    shown = faults.run(faults.UNSHOWN[name])
    assert_complete(shown, [])
    assert shown["struck"] == 1


@pytest.mark.parametrize("name", MISSED | faults.POOLED | faults.EVALUATED)
def test_a_fault_stops_one_process_if_asked(name):
    fault = faults.ALL[name]
    shown = faults.run(fault, on_error="raise")
    (kind, *_), _ = shown["raised"]
    assert kind == fault.says.split(":")[0]
    assert_left_alone(shown)
    assert shown["failures"] == failures_of(shown, fault)


def test_without_a_fault_nothing_is_skipped():
    assert_complete(faults.run(faults.FAULTS["the network"], here=False), [])


@pytest.mark.slow
@pytest.mark.parametrize("case", SKIPPED, ids=id_of)
def test_a_fault_on_some_processes_is_skipped_on_all(case, shown_by_two):
    fault = faults.ALL[case[0]]
    for rank, shown in enumerate(shown_by_two):
        assert_skipped(shown, fault, first=rank == 0, process=min(case[1]))


@pytest.mark.slow
@pytest.mark.parametrize("case", SKIPPED, ids=id_of)
def test_a_vote_comes_before_every_reduction_and_the_cause_after_a_failed_one(case, shown_by_two):
    fault = faults.ALL[case[0]]
    failed = {1: ["vote", "text"], 2: ["vote", "sums", "vote", "text"]}[fault.sweep or 1]
    measured = MEASURED[:3] if case[0] in faults.ELASTIC else MEASURED
    if case[0] in faults.DIFFERENCES:
        failed = ["vote"]  # everyone knows the cause
    if case[0] == "a sample that is not finite":
        failed = [*failed, "sums"]  # found layer by layer; there may be tallies to add up
    if fault.epoch == 0 and case[0] in faults.ELASTIC and len(case[1]) == 1:
        failed = [*failed, "vote"]  # all plan again, without what failed on one
    for shown in shown_by_two:
        for epoch, sent in shown["sent"].items():
            assert sent == (["buffers", *failed] if epoch == fault.epoch else measured)


@pytest.mark.slow
@pytest.mark.parametrize("case", POOLED, ids=id_of)
def test_a_layer_that_fails_on_some_processes_costs_its_own_callback_on_all(case, shown_by_two):
    fault = faults.ALL[case[0]]
    # if it fails on both, the cause is that of the last process, or of the process itself
    for rank, shown in enumerate(shown_by_two):
        process = rank if rank in case[1] else case[1][0]
        assert_skipped_by_the_first_alone(shown, fault, first=rank == 0, process=process)
        sent = {1: ["vote", "text", "sums", "vote", "sums"]}.get(
            fault.sweep, ["vote", "sums", "vote", "text", "sums"]
        )
        for epoch, found in shown["sent"].items():
            assert found == (["buffers", *sent] if epoch == fault.epoch else MEASURED)


@pytest.mark.slow
@pytest.mark.parametrize("case", UNLOGGED, ids=id_of)
def test_what_cannot_be_logged_skips_nothing_on_any_process(case, shown_by_two):
    fault = faults.ALL[case[0]]
    for rank, shown in enumerate(shown_by_two):
        # of no logger or figure but those of the first process
        here = case[1] == (0,) and rank == 0
        assert_complete(shown, told_of(fault) if here else [])
        assert shown["struck"] == (calls_of(fault) if here else 0)
        assert list(shown["sent"].values()) == [MEASURED] * 3


@pytest.mark.slow
@pytest.mark.parametrize("case", LASTING, ids=id_of)
def test_a_cause_that_lasts_is_told_once_by_the_first_process_alone(case, shown_by_two):
    for rank, shown in enumerate(shown_by_two):
        assert_told_once(shown, faults.ALL[case[0]], first=rank == 0, process=min(case[1]))
        assert list(shown["sent"].values()) == [["buffers", "vote", "text"]] * 3


@pytest.mark.slow
@pytest.mark.parametrize("case", UNSHOWN, ids=id_of)
def test_a_display_that_fails_on_the_first_process_lets_no_other_wait(case, shown_by_two):
    for rank, shown in enumerate(shown_by_two):
        assert_complete(shown, [])
        assert shown["struck"] == (rank == 0)
        assert list(shown["sent"].values()) == [MEASURED] * 3


def fail(*_, **__):
    raise OSError("nothing to write to")


def test_a_warning_that_cannot_be_shown_stops_one_of_several_processes_never(monkeypatch):
    alone, several = (SimpleNamespace(world_size=n, is_global_zero=True) for n in (1, 2))
    other = SimpleNamespace(world_size=2, is_global_zero=False)
    log = logging.getLogger("lightning_nc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="a word"):
            tell(alone, "a word")  # as is asked for
        tell(several, "a word")
        tell(other, "a word")
        monkeypatch.setattr(log, "warning", fail)
        tell(several, "a word")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", fail)
        tell(alone, "a word")
        tell(several, "a word")


def assert_stopped(shown, fault, own, process):
    """A process that has the fault stops with it, any other with its text."""
    assert_left_alone(shown)
    assert shown["failures"] == failures_of(shown, fault)
    (kind, *others), text = shown["raised"]
    if own:
        assert f"{kind}: {text}" == fault.says
    else:
        assert "RuntimeError" in (kind, *others)
        assert said_by(fault, process) in text


@pytest.mark.slow
@pytest.mark.parametrize("case", STOPPED, ids=id_of)
def test_a_fault_on_some_processes_stops_all_with_its_cause_if_asked(case, shown_by_two):
    fault = faults.ALL[case[0]]
    for rank, shown in enumerate(shown_by_two):
        own = rank in case[1] and case[0] not in faults.DIFFERENCES
        assert_stopped(shown, fault, own, min(case[1]))


@pytest.mark.slow
@pytest.mark.parametrize("case", EVALUATED)
def test_what_fails_in_evaluation_fails_on_all_processes_alike(case, shown_by_two):
    name, _, on_error = case
    for rank, shown in enumerate(shown_by_two):
        if on_error == "warn":
            fault = faults.ALL[name]
            assert_skipped_by_the_first_alone(shown, fault, first=rank == 0, process=rank)
        else:
            assert_stopped(shown, faults.ALL[name], own=True, process=rank)


@pytest.mark.slow
@pytest.mark.parametrize("case", VOTELESS, ids=id_of)
def test_without_a_vote_a_process_waits_for_one_that_has_stopped(case, shown_by_two):
    waited, stopped = shown_by_two
    fault = faults.ALL[case[0]]
    assert_stopped(stopped | {"in step": [True]}, fault, own=True, process=1)
    assert waited["sent"][fault.epoch] == ["buffers", "sums"]
    _, text = waited["raised"]
    assert "gloo" in text
    with pytest.raises(AssertionError):
        assert_stopped(waited | {"in step": [True]}, fault, own=False, process=1)


def test_memory_of_a_pass_that_failed_is_released(tmp_path):
    held, alive = [], []

    def pool(h):
        wide = h.repeat(1, 1000)
        held.extend([weakref.ref(wide), weakref.ref(h)])
        if len(held) > 6:  # after the trace and one batch, which was cached
            raise MemoryError("no room")
        return wide

    class Collecting(pytorch_lightning.Callback):
        def on_train_batch_start(self, *_):
            alive.append([ref for ref in held if ref() is not None])

    callback = EquiSeparation(layers={"net.2": pool}, epochs=[0])
    with pytest.warns(RuntimeWarning, match="MemoryError: no room"):
        nets.fit(tmp_path, [callback, Collecting()])
    assert len(held) > 6
    assert alive
    assert alive[0] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_under_the_logger_costs_warnings_and_no_weights(tmp_path):
    class Silent(nets.Classifier):
        log = None  # so that all that is written is ours

        def training_step(self, batch, _):
            return self.loss_of(batch)

    def train(callbacks, logger):
        torch.manual_seed(5)
        module = Silent()
        run = nets.trainer(tmp_path, callbacks, logger=logger)
        return module, run, torch.utils.data.DataLoader(nets.vectors(), 10, shuffle=True)

    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    file = Path(logger.log_dir, "metrics.csv")
    file.parent.mkdir(parents=True)
    os.symlink("/dev/full", file)
    used = [kind(figures=False) for kind in nets.CALLBACKS]
    module, run, loader = train(used, logger)
    with (
        pytest.warns(RuntimeWarning, match="Could not log to CSVLogger.*No space left") as told,
        pytest.raises(OSError, match="No space left"),  # Lightning's own, when it closes the file
    ):
        run.fit(module, loader)
    assert len([w for w in told if "Could not log to CSVLogger" in str(w.message)]) == 1
    assert [len(callback.history) for callback in used] == [3] * len(used)
    alone, run, loader = train([], False)
    run.fit(alone, loader)
    assert nets.same(module.state_dict(), alone.state_dict())
