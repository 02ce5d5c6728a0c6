"""Several processes measure what one would, agree on failures, and train as they would have."""

import math

import pytest

from tests import nets
from tests.callbacks import processes_of_lightning as children
from tests.processes import run_processes

# to start processes that import torch and Lightning takes most of the time
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(*nets.only_our_warnings)]


@pytest.fixture(scope="module")
def by_one_process():
    return {name: children.measured(1, **case)[0] for name, case in children.MEASURED.items()}


@pytest.fixture(scope="module")
def of_two_processes():
    return run_processes(children.measure_and_train, 2)


@pytest.fixture(scope="module")
def by_two_processes(of_two_processes):
    return [measured for measured, *_ in of_two_processes]


@pytest.fixture(scope="module")
def trained_by_two(of_two_processes):
    return [trained for _, trained, _ in of_two_processes]


def assert_equal(values, expected):
    assert list(values) == list(expected)
    for key, value in expected.items():
        close = math.isclose(values[key], value, rel_tol=1e-12, abs_tol=1e-15)
        assert close or (math.isnan(value) and math.isnan(values[key])), key


@pytest.mark.parametrize("case", children.MEASURED)
def test_two_processes_measure_what_one_does(case, by_one_process, by_two_processes):
    for results in by_two_processes:
        assert_equal(results[case][0], by_one_process[case])


def test_the_statistics_of_batches_make_a_difference(by_one_process):
    plain, batch = (by_one_process[k] for k in ("an odd number of batches", "batch statistics"))
    assert plain["nc/train/nc1"] != pytest.approx(batch["nc/train/nc1"], rel=1e-3)


@pytest.mark.parametrize("case", children.MEASURED)
def test_a_measurement_costs_a_vote_and_a_reduction_per_sweep(case, by_two_processes):
    sweeps, buffers = 1 if "gradients" in case else 2, 1
    for results in by_two_processes:
        assert results[case][1] == ["all_reduce"] * (buffers + 2 * sweeps)


def test_the_network_of_the_first_process_is_measured_on_all(of_two_processes):
    (found, alone, buffers), (other_found, other_alone, other_buffers) = (
        results[2] for results in of_two_processes
    )
    assert not nets.same(buffers, other_buffers)  # each process has statistics of its own
    assert found == other_found
    for key in ("nc/own/nc1", "nc/own/nc3", "nc/own/cdnv"):
        assert math.isclose(found[key], alone[key], rel_tol=1e-12)
        assert not math.isclose(found[key], other_alone[key], rel_tol=1e-6)


def test_three_processes_measure_what_one_does(by_one_process):
    for results in run_processes(children.measure_all, 3):
        for case, expected in by_one_process.items():
            assert_equal(results[case][0], expected)


@pytest.mark.parametrize("way", ["measured", "measured with batch statistics", "broken", "other"])
def test_weights_under_ddp_are_bit_identical(way, trained_by_two):
    for weights, _ in trained_by_two:
        assert nets.same(weights[way], weights["alone"])
    first, second = (weights["alone"] for weights, _ in trained_by_two)
    parameters = [key for key in first if "running" not in key]
    assert all(nets.same(first[key], second[key]) for key in parameters)


def test_a_failure_on_one_process_is_skipped_on_both(trained_by_two):
    for _, notes in trained_by_two:
        assert notes["measured"] == (0, 3)
        assert notes["broken"] == (3, 0)


def test_processes_that_read_different_labels_skip_the_measurement(trained_by_two):
    for _, notes in trained_by_two:
        assert notes["other"] == (3, 0)


def test_a_failure_on_one_process_stops_both_if_asked(trained_by_two):
    (_, first), (_, second) = trained_by_two
    cause = "process 1 raised OSError: the disk of this process is gone"
    assert first["raised"] == f"MeasurementError: {cause}"
    assert second["raised"] == "OSError: the disk of this process is gone"


def test_the_first_process_draws_for_a_run_that_fails_without_communication(trained_by_two):
    ends = [notes["stopped"] for _, notes in trained_by_two]
    assert ends == [("the disk is gone", 2, []), ("the disk is gone", None, [])]
