"""Signals end a run, or have it saved, as they would without our callbacks."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests import nets
from tests.callbacks.signalled import BATCH, WAIT, train

TERM, INT, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
pytestmark = pytest.mark.slow


def signalled(folder, number, where, world=1, to=(0,), **options):
    """Exit codes and outcomes of the processes of a run of which some get a signal.

    Also the seconds until they have all ended.
    """
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_nc", "tests.callbacks.signalled"])
    children = [
        context.Process(target=train, args=(str(folder), where, rank, world), kwargs=options)
        for rank in range(world)
    ]
    try:
        for child in children:
            child.start()
        wait_until(lambda: len([*folder.glob("here-*")]) == world, children)
        for rank in to:
            os.kill(children[rank].pid, number)
        time.sleep(0.05)  # it arrives while the process waits
        (folder / "sent").touch()
        started = time.monotonic()
        for child in children:
            child.join(60)
        seconds = time.monotonic() - started
        codes = [child.exitcode for child in children]
        assert None not in codes, "the run goes on"
    finally:
        for child in children:
            child.kill()
            child.join()
    paths = [folder / f"outcome-{rank}.json" for rank in range(world)]
    return codes, [json.loads(path.read_text()) for path in paths], seconds


def wait_until(reached, children):
    until = time.monotonic() + 120
    while not reached():
        assert all(child.is_alive() for child in children), "a process has ended"
        assert time.monotonic() < until, "a process does not come"
        time.sleep(0.01)


def weights_in(path):
    return torch.load(path, weights_only=True)["state_dict"]


def running(pid):
    """Whether a process runs; one that has ended may still have an entry."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


CASES = [
    (TERM, "reading", {}),
    (TERM, "reading", {"workers": 2}),
    (TERM, "the network", {"batch_norm": "batch"}),
    (TERM, "a figure", {}),
    (INT, "reading", {}),
    (INT, "reading", {"workers": 2}),
    (INT, "the network", {"batch_norm": "batch"}),
    (INT, "a figure", {}),
    (TERM, "reading", {"handler": "raise"}),
    (TERM, "a figure", {"handler": "raise"}),
]


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """Runs without a measurement, by the signal and the handler of the program."""
    runs = {}
    for number, handler in [(TERM, None), (INT, None), (TERM, "raise")]:
        folder = tmp_path_factory.mktemp("without")
        runs[number, handler] = (folder, *signalled(folder, number, None, handler=handler))
    return runs


@pytest.mark.parametrize(("number", "where", "options"), CASES)
def test_a_run_ends_as_it_would_without_a_measurement(number, where, options, without, tmp_path):
    (code,), (outcome,), _ = signalled(tmp_path, number, where, **options)
    folder, (expected_code,), (expected,), _ = without[number, options.get("handler")]
    assert (code, outcome["ended"]) == (expected_code, expected["ended"])
    assert nets.same(weights_in(tmp_path / "last.ckpt"), weights_in(folder / "last.ckpt"))
    assert (outcome["modes"], outcome["hooks"], outcome["failures"]) == (1, 0, 0)
    # what is complete is kept, and nothing more is read than the batch that was begun
    assert outcome["epochs"] == ([0, 1, 2] if where == "a figure" else [0, 1])
    assert outcome["reads after"] <= BATCH
    workers = [path.name.partition("-")[2] for path in tmp_path.glob("worker-*")]
    assert len(workers) >= 2 * bool(options.get("workers"))
    until = time.monotonic() + 10
    while any(map(running, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(running, workers))


def test_a_requeued_run_is_saved_as_it_was_in_training(tmp_path):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    job = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    environment = job | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    options = {"handler": "requeue", "batch_norm": "batch", "environment": environment}
    (code,), (outcome,), _ = signalled(tmp_path, USR1, "the network", **options)
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    # the run goes on until the scheduler ends it
    assert (code, outcome["ended"], outcome["epochs"]) == (0, None, [0, 1, 3])
    (saved,) = tmp_path.glob("hpc_ckpt_*")
    assert nets.same(weights_in(saved), torch.load(tmp_path / "epoch.pt", weights_only=True))


@pytest.mark.parametrize("to", [[0, 1], [0], [1]], ids=str)
def test_two_processes_end_as_they_would_without_a_measurement(to, tmp_path):
    """Where one alone gets a signal, its handler in Lightning communicates, and the run fails."""
    ends, seconds = {}, {}
    for where in (None, "reading"):
        (folder := tmp_path / str(where)).mkdir()
        codes, outcomes, seconds[where] = signalled(folder, TERM, where, world=2, to=to)
        ends[where] = codes, [outcome["ended"] for outcome in outcomes]
    assert ends["reading"] == ends[None]
    assert seconds["reading"] < seconds[None] + WAIT.total_seconds()
    assert [outcome["epochs"] for outcome in outcomes] == [[0, 1]] * 2  # broken off on both
    assert [outcome["failures"] for outcome in outcomes] == [0, 0]
