import time

import pytest
import torch
import torch.distributed as dist
from numpy.testing import assert_allclose

from lightning_nc.metrics import NeuralCollapse, SeparationFuzziness
from lightning_nc.passes.sums import Sums
from tests.functional import cases
from tests.processes import run_processes

COUNTS = (30, 20, 10)


def shares(world_size):
    """Which process has which samples, by name; indices into the same 60 samples."""
    _, labels = cases.clusters(COUNTS, 5, 0.3, offset=2.0)
    indices = torch.arange(60)
    first = labels == 2
    return {
        "unequal shares": indices.split([37, 23] if world_size == 2 else [37, 4, 19]),
        "no sample on the last": [*indices.chunk(max(world_size - 1, 1)), indices[:0]],
        "no sample on the first": [indices[:0], *indices.chunk(max(world_size - 1, 1))],
        "a class on the first only": [indices[first], *indices[~first].chunk(world_size - 1)],
    }


def measure_shares(rank, world_size):
    features, labels = cases.clusters(COUNTS, 5, 0.3, offset=2.0)
    results = {}
    for name, share in shares(world_size).items():
        D, nc = SeparationFuzziness(3), NeuralCollapse(3)
        for part in share[rank].split(8) if len(share[rank]) else []:
            D.update(features[part], labels[part])
            nc.update(features[part], labels[part])
        results[name] = {"D": D.compute(), **nc.compute()}
        assert results[name]["D"] == D.compute()
        assert D.moments[:3, 0].sum() == len(share[rank])  # its own samples again
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_measure_what_one_process_measures(world_size):
    features, labels = cases.clusters(COUNTS, 5, 0.3, offset=2.0)
    D, nc = SeparationFuzziness(3), NeuralCollapse(3)
    D.update(features.clone(), labels)
    nc.update(features.clone(), labels)
    expected = {"D": D.compute(), **nc.compute()}
    by_rank = run_processes(measure_shares, world_size)
    for results in by_rank:
        assert len(results) == 4
        for name, values in results.items():
            for key in expected:
                assert_allclose(values[key], expected[key], rtol=1e-12, err_msg=f"{name}: {key}")
                assert values[key] == by_rank[0][name][key]


def sweep(rank, world_size):
    calls = []

    def all_reduce(flat):
        calls.append(flat.shape)
        dist.all_reduce(flat)
        return flat

    sums = Sums({"counts": (3,), ("layer", 1): (3, 2), "total": ()})
    if rank == 0:
        sums.add(("layer", 1), torch.ones(3, 2))
    sums.add("counts", torch.tensor([rank, 1.0, 0.25]))
    return calls, sums.over_processes(all_reduce)


def test_sums_add_up_over_processes_in_one_all_reduce():
    (calls, first), (_, other) = run_processes(sweep, 2)
    assert calls == [(10,)]
    assert first["counts"].tolist() == [1, 2, 0.5]
    assert first["layer", 1].tolist() == [[1, 1]] * 3
    assert first["total"] == 0
    for name in first:
        assert torch.equal(first[name], other[name])


def fail_on_second(rank, world_size):
    if rank == 1:
        raise KeyError("a message of its own")
    dist.barrier()


def hang(rank, world_size):
    time.sleep(600)


def test_a_failing_process_shows_its_traceback():
    with pytest.raises(AssertionError, match=r"(?s)Process 1 failed.*a message of its own"):
        run_processes(fail_on_second, 2, timeout=60)


def test_processes_that_hang_are_killed_at_the_deadline():
    start = time.monotonic()
    with pytest.raises(AssertionError, match=r"Processes \[0\] gave no result within 1 s"):
        run_processes(hang, 1, timeout=1)
    assert time.monotonic() - start < 20
