"""Networks whose parameters are sharded are measured as if they were whole, or refused."""

import math

import pytest

from tests import nets
from tests.callbacks import sharded
from tests.processes import run_processes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(*nets.only_our_warnings)]


@pytest.fixture(scope="module")
def trained():
    return run_processes(sharded.train_sharded, 2)


@pytest.fixture(scope="module")
def failed():
    return run_processes(sharded.fail_sharded, 2)


@pytest.mark.parametrize("probe", sharded.PROBES)
@pytest.mark.parametrize("kind", sharded.SHARDED)
def test_sharded_training_is_bit_identical(kind, probe, trained):
    for results in trained:
        assert nets.same(results[kind][probe][0], results[kind]["alone"])


@pytest.mark.parametrize("probe", sharded.PROBES)
@pytest.mark.parametrize("kind", sharded.SHARDED)
def test_a_sharded_network_is_measured_like_a_whole_one(kind, probe, trained):
    (_, first), (_, second) = (results[kind][probe] for results in trained)
    assert first == second
    assert len(first) == 3
    if "bf16" not in kind:  # which the strategies round in places of their own
        _, expected = trained[0]["ddp"][probe]
        assert list(first[0]) == list(expected[0])
        for key, value in expected[0].items():
            assert math.isclose(first[0][key], value, rel_tol=1e-12, abs_tol=1e-15), key


@pytest.fixture(scope="module")
def of_blocks():
    return run_processes(sharded.measured_blocks, 2)


@pytest.mark.parametrize("kind", sharded.OF_BLOCKS)
def test_blocks_are_found_in_shards_and_measured_when_their_inputs_have_become_longer(
    kind, of_blocks
):
    for results in of_blocks:
        assert len(results[kind]) == 3
        for values, expected in zip(results[kind], results["ddp"], strict=True):
            of_layers = [key for key in expected if key.startswith("separation_layers/")]
            assert len(of_layers) == 4  # the input and three blocks
            for key in of_layers:
                assert math.isclose(values[key], expected[key], rel_tol=1e-9), key


def test_parameters_that_train_apart_are_told():
    told, others = run_processes(sharded.told_of_parameters, 2)
    for kind in sharded.SHARDED:
        assert told[kind] == []
    of_apart = [told[kind] for kind in sharded.APART]
    first, second = (sentence for (sentence,) in of_apart)
    assert ": parameters (net.0.weight) are not the same on all processes" in first
    assert ": parameters (net.head.weight, net.head.bias) are not the same" in second
    assert not any(others.values())


@pytest.fixture(scope="module")
def of_heads():
    return run_processes(sharded.measured_heads, 2)


@pytest.mark.parametrize("head", sharded.OF_HEADS)
def test_what_weights_tell_of_heads_does_not_depend_on_shards(head, of_heads):
    for results in of_heads:
        values, expected = results[head, "FSDP"], results[head, "ddp"]
        assert ("nc/train/nc3" in values) is not head.startswith("none")
        assert values.keys() == expected.keys()
        for key in expected.keys() - {"nc/train/seconds"}:
            assert math.isclose(values[key], expected[key], rel_tol=1e-12, abs_tol=1e-15), key


@pytest.fixture(scope="module")
def hybrid():
    return run_processes(sharded.train_hybrid, 4)


@pytest.mark.parametrize("kind", sharded.HYBRID)
def test_hybrid_sharding_is_measured_like_ddp_and_trains_bit_identically(kind, hybrid):
    sharded.assert_like_ddp(hybrid, kind)


@pytest.mark.parametrize("readings", [0, 10, 60])
@pytest.mark.parametrize("kind", ["fully_shard", "FSDP of each layer"])
def test_a_process_that_cannot_read_keeps_none_waiting(kind, readings, failed, trained):
    skipped = 1 if readings == 60 else 3
    for results, unbroken in zip(failed, trained, strict=True):
        weights, failures, measurements, _ = results[kind, readings]
        assert nets.same(weights, unbroken[kind]["alone"])
        assert (failures, measurements) == (skipped, 3 - skipped)
    (*_, told), (*_, silent) = (results[kind, readings] for results in failed)
    assert len(told) == min(skipped, 2)  # the cause, and at the end how often
    assert all("process 1 raised OSError: the disk of this process is gone" in t for t in told)
    assert silent == []


@pytest.mark.parametrize("kind", ["fully_shard", "FSDP of each layer"])
def test_a_forward_pass_that_fails_on_all_processes_leaves_the_network_usable(
    kind, failed, trained
):
    for results, unbroken in zip(failed, trained, strict=True):
        weights, failures, measurements, _ = results[kind, "inputs of another width"]
        assert nets.same(weights, unbroken[kind]["alone"])
        assert (failures, measurements) == (3, 0)


@pytest.mark.parametrize("guarded", [True, False])
def test_parameters_are_left_in_shards_and_would_not_be_without_the_guard(guarded):
    passes = run_processes(sharded.shards_after_a_pass, 2, guarded)
    for before, within, after in passes:
        assert all(before)
        assert not any(within)  # the root stays whole
        assert all(after) if guarded else not any(after)


def test_a_network_that_validation_has_left_whole_is_in_shards_after_a_pass():
    assert run_processes(sharded.a_pass_after_validation, 2) == [True, True]


def test_tensor_parallel_strategies_are_refused_at_setup():
    for told in run_processes(sharded.tensor_parallel, 2):
        assert "cannot measure under ModelParallelStrategy with tensor_parallel_size=2" in told
        # without the first number Lightning refuses the second
        assert "ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)" in told
        assert "lightning_nc.measure" in told


def test_without_a_trainer_what_is_in_parts_is_measured_as_a_whole_or_told():
    for results in run_processes(sharded.measured_in_parts, 2):
        expected, nothing = results["whole"]
        assert nothing == []
        for kind, accuracy in (("fully_shard", 1e-12), ("tensor parallel", 1e-5)):
            values, (no_gradients, *others) = results[kind]
            of_layers = [key for key in expected if not key.startswith("elasticity/")]
            assert [*values] == of_layers
            for key in of_layers:
                assert math.isclose(values[key], expected[key], rel_tol=accuracy), key
            assert "leaves out local elasticity: Gradients cannot be compared" in no_gradients
            assert len(others) == (kind == "tensor parallel")
            assert all("in tensor parallelism (0.weight, 0.bias, 2.weight)" in t for t in others)
