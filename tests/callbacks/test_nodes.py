"""Two nodes: network namespaces of one machine, joined by a cable of their own."""

import math
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests import nets
from tests.callbacks.records import csv_rows
from tests.callbacks.scripts.start import run_script, warnings_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(*nets.only_our_warnings)]

FITS = {"strategy": "ddp", "devices": 1, "num_nodes": 2, "batch_size": 5, "limit_val_batches": 0}
BROKEN = {"deed": "fail", "rank": 1}  # the measurement after epoch two, on the second node
KILLED = {"fate": {"deed": "kill", "rank": 1}, "wait_seconds": 3}


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def nodes():
    """The commands that run something on each of two nodes, and the ends of the cable."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip, of iproute2")
    names = [f"node{n}-{os.getpid()}" for n in (0, 1)]
    ends = [f"nc{n}x{os.getpid()}" for n in (0, 1)]
    try:
        for name in names:
            if (made := ip("netns", "add", name)).returncode:
                pytest.skip(f"cannot make a network namespace: {made.stderr.strip()}")
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for n, (name, end) in enumerate(zip(names, ends, strict=True)):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "address", "add", f"10.77.0.{n + 1}/24", "dev", end)
            for device in ("lo", end):
                assert ip("-n", name, "link", "set", device, "up").returncode == 0
        yield [(("ip", "netns", "exec", name), end) for name, end in zip(names, ends, strict=True)]
    finally:
        for name in names:
            ip("netns", "delete", name)


def run_on(nodes, folder, fits):
    """Train with one process on each node; what each wrote."""

    def run(node):
        n, (within, end) = node
        launcher = ("-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={n}")
        launcher += ("--master-addr=10.77.0.1", "--master-port=29517")
        return run_script(folder, fits, launcher, within=within, GLOO_SOCKET_IFNAME=end)

    with ThreadPoolExecutor() as side_by_side:
        return list(side_by_side.map(run, enumerate(nodes)))


@pytest.fixture(scope="module")
def folder(nodes, tmp_path_factory):
    """Folder of the results of three runs: measured, alone, and with a fault on the second node."""
    folder = tmp_path_factory.mktemp("nodes")
    fits = {
        "measured": FITS | {"csv": True},
        "alone": FITS | {"measured": None},
        "broken": FITS | {"fate": BROKEN},
    }
    for done in run_on(nodes, folder, fits):
        assert done.returncode == 0, done.stderr
        told = warnings_of(done)
        assert all("process 1 raised OSError: the disk is gone" in line for line in told)
    return folder


def result(folder, fit, rank):
    return torch.load(folder / f"{fit}-{rank}.pt", weights_only=True)


@pytest.mark.parametrize("fit", ["measured", "broken"])
def test_weights_on_two_nodes_are_bit_identical(fit, folder):
    for rank in (0, 1):
        weights = result(folder, fit, rank)["weights"]
        assert nets.same(weights, result(folder, "alone", rank)["weights"])


def test_both_nodes_have_the_same_values_and_one_of_them_logs(folder):
    first, second = (result(folder, "measured", rank)["metrics"] for rank in (0, 1))
    assert first.keys() == second.keys()
    assert "nc/train/nc1" in first
    last = {}
    for row in csv_rows(folder):
        last |= {key: float(value) for key, value in row.items() if value}
    for key, value in first.items():
        if "/train/" in key and not key.endswith("seconds"):
            assert float(value) == float(second[key]), key
            assert math.isclose(float(value), last[key], rel_tol=1e-12), key


def test_a_failure_on_the_second_node_is_skipped_on_both(folder):
    for rank in (0, 1):
        state = result(folder, "broken", rank)["callbacks"]["nc"]
        assert [m.epochs_completed for m in nets.history_of(state)] == [0, 1, 3, 4]
        assert state["failures"] == 1


def test_a_lost_node_ends_the_run_on_the_other(nodes, tmp_path):
    first, second = run_on(nodes, tmp_path, {"killed": FITS | KILLED})
    assert first.returncode != 0
    assert second.returncode != 0
    assert not list(tmp_path.glob("killed-*.pt"))
