"""Several processes measure what one does, and train as they would without callbacks."""

import functools

import pytest
import torch

from tests.gpu import together
from tests.gpu.device import needs_cuda, on_cuda, only_our_warnings
from tests.processes import run_processes
from tests.traces import difference

pytestmark = only_our_warnings

# before 2.7, torch's `fully_shard` does not run on a CPU
_ON_CPU = "DDP", "FSDPStrategy", *["fully_shard"] * hasattr(torch.cpu.Stream, "record_event")
# kinds of training that run in a group, by backend and number of processes
GROUPS = {
    ("gloo", 2): ("DDP", "SyncBatchNorm") if on_cuda() else _ON_CPU,
    ("nccl", 1): ("DDP", "FSDPStrategy", "fully_shard"),
}
CASES = [(*group, kind) for group, kinds in GROUPS.items() for kind in kinds]
if not on_cuda():
    CASES.append(("gloo", 2, "SyncBatchNorm"))
MARKED = [
    pytest.param(
        *case,
        marks=[needs_cuda(" and ".join(case[::2]))] * (case[0] == "nccl" or "Sync" in case[2]),
    )
    for case in CASES
]


@functools.cache
def results_of(backend, world):
    """The results of each process of a group, by rank."""
    return run_processes(together.compare, world, GROUPS[backend, world], backend, timeout=150)


def found_by(backend, world, kind):
    results = [of_process[kind] for of_process in results_of(backend, world)]
    for rank, each in enumerate(results):
        assert not isinstance(each, str), f"process {rank}: {each}"
    return results


@pytest.mark.parametrize(("backend", "world", "kind"), MARKED)
def test_training_is_bit_identical_on_every_process(backend, world, kind):
    for alone, with_callbacks, _ in found_by(backend, world, kind):
        assert difference(alone, with_callbacks) is None
    weights = [with_callbacks[0] for _, with_callbacks, _ in found_by(backend, world, kind)]
    buffers = {"net.norm.running_mean", "net.norm.running_var"}
    shared = [{k: v for k, v in w.items() if k not in buffers} for w in weights]
    assert difference(shared[0], shared[-1]) is None


@pytest.mark.parametrize(("backend", "world", "kind"), MARKED)
def test_values_are_those_of_one_process(backend, world, kind):
    results = found_by(backend, world, kind)
    _, (weights, losses), values = results[0]
    assert all(torch.isfinite(loss) for loss in losses)
    assert difference(values, results[-1][2]) is None
    by_one = together.measured_by_one(kind, weights)
    assert values.keys() == by_one.keys()
    assert len(values) > 20
    # if layers have another class or are sharded, their float32 products may differ
    rel = 1e-9 if kind == "DDP" else 1e-4
    for key, value in by_one.items():
        assert values[key] == pytest.approx(value, rel=rel, abs=1e-12, nan_ok=True), key


@needs_cuda("SyncBatchNorm")
def test_batch_norm_was_synchronised():
    statistics = [
        {k: v for k, v in weights.items() if "running" in k}
        for _, (weights, _), _ in found_by("gloo", 2, "SyncBatchNorm")
    ]
    assert difference(*statistics) is None
    losses = [losses for _, (_, losses), _ in found_by("gloo", 2, "SyncBatchNorm")]
    assert difference(*losses) is not None
