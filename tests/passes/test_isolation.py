"""A request that cannot be met, on any process, costs nothing but itself."""

import pytest
import torch

from lightning_nc.passes import found_layers
from lightning_nc.passes.agreement import MeasurementError, told_by
from lightning_nc.passes.gradient_pass import GradientPass
from lightning_nc.passes.request import KernelRequest, Request
from tests.passes import isolated
from tests.passes.isolated import LOOKED_AT, ON, PLANNED, SWEPT, SWEPT_AGAIN, ask, values
from tests.processes import run_processes

EARLY = {name: (make, says) for name, (make, says, *_) in (PLANNED | LOOKED_AT | SWEPT).items()}
MEASURED = ["buffers", "vote", "sums", "vote", "sums"]
TOLD = {  # a failed vote is followed by one more reduction, which carries the causes
    1: ["buffers", "vote", "text", "sums", "vote", "sums"],
    2: ["buffers", "vote", "sums", "vote", "text", "sums"],
}
PLANNED_AGAIN = ["buffers", "vote", "text", "vote", "sums", "vote", "sums"]


def of_siblings(**options):
    return [values(answer) for answer in ask(isolated.SIBLINGS, **options)[1]]


def assert_equal(found, expected, tolerance=0):
    assert list(found) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def alone():
    return of_siblings()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", EARLY)
def test_a_request_that_cannot_be_met_costs_only_itself(name, place, alone):
    make, says = EARLY[name]
    requests = list(isolated.SIBLINGS)
    requests.insert(place, make())
    answers = ask(requests)[1]
    assert says in str(answers.pop(place))
    for answer, expected in zip(answers, alone, strict=True):
        assert_equal(values(answer), expected)


@pytest.mark.parametrize("name", SWEPT_AGAIN)
def test_so_does_one_that_fails_in_the_second_sweep(name):
    make, says, _ = SWEPT_AGAIN[name]
    first, bad, second = ask([isolated.SIBLINGS[0], make(8), isolated.SIBLINGS[1]], cache_mb=0)[1]
    assert says in str(bad)
    for answer, expected in zip((first, second), of_siblings(cache_mb=0), strict=True):
        assert_equal(values(answer), expected)


def test_a_layer_that_runs_on_some_batches_only_costs_its_own_request(alone):
    requests = [*isolated.SIBLINGS, Request(layers=["rare"])]
    first, second, bad = ask(requests, isolated.Sometimes(batches=4))[1]
    assert "'rare' did not run on this batch" in str(bad)
    for answer, expected in zip((first, second), alone, strict=True):
        assert_equal(values(answer), expected)


def test_a_layer_for_which_memory_runs_out_after_the_last_vote_costs_only_its_own_request(
    alone, monkeypatch
):
    geometry_of = found_layers.geometry_of

    def with_little_memory(centres, *sums):
        if centres.means.shape[1] == 1:
            raise MemoryError("one more array")
        return geometry_of(centres, *sums)

    monkeypatch.setattr(found_layers, "geometry_of", with_little_memory)
    bad = Request(layers={"net.2": lambda h: h[:, :1]})
    first, error, second = ask([isolated.SIBLINGS[0], bad, isolated.SIBLINGS[1]])[1]
    assert (type(error), str(error)) == (MemoryError, "one more array")
    for answer, expected in zip((first, second), alone, strict=True):
        assert_equal(values(answer), expected)


@pytest.mark.parametrize("cache_mb", [512, 0])
def test_decisions_that_fail_cost_only_those_who_ask_for_them(cache_mb):
    requests = [isolated.SIBLINGS[1], Request(layers="blocks")]
    bad, answer = ask(requests, isolated.Sparse(), cache_mb=cache_mb)[1]
    assert "sparse" in str(bad).lower()
    assert_equal(values(answer), values(ask(requests[1:], cache_mb=cache_mb)[1][0]))


@pytest.mark.parametrize("name", ["a pool", "features that are not finite"])
def test_what_failed_in_a_sweep_is_tried_again_at_the_next_measurement(name, alone):
    bad, calls = SWEPT[name][0](), []
    (pool,) = bad.layers.values()

    def once(h):
        calls.append(h)
        return pool(h) if len(calls) < 5 else h

    requests = [Request(layers={"net.2": once}), *isolated.SIBLINGS]
    one, answers, _ = ask(requests)
    assert isinstance(answers[0], Exception)
    assert not one.only_planned_failures  # so the plan is not kept
    calls += [None] * 5
    _, again, _ = ask(requests)
    assert not isinstance(again[0], Exception)
    assert_equal(values(again[1]), alone[0])


@pytest.mark.parametrize(
    ("error", "kept"),
    [(MemoryError("full"), False), (OSError("no file"), False), (ValueError("odd"), True)],
)
def test_a_plan_is_made_again_if_what_failed_in_it_may_succeed_the_next_time(error, kept):
    def pool(h):
        raise error

    one, answers, _ = ask([Request(layers={"net.2": pool}), *isolated.SIBLINGS])
    assert answers[0] is error
    assert one.only_planned_failures == kept


def test_what_planning_refuses_does_not_cost_a_new_plan_each_time(alone):
    requests = [PLANNED["a layer that nothing has"][0](), *isolated.SIBLINGS]
    one, answers, _ = ask(requests)
    assert one.only_planned_failures
    again, others, _ = ask(requests, plan=one.plan)
    assert again.plan is one.plan
    assert str(others[0]) == str(answers[0])
    assert_equal(values(others[1]), alone[0])


def test_a_network_is_not_run_over_the_probe_if_no_request_can_be_met():
    net, runs = isolated.Idle(), []
    net.register_forward_hook(lambda *_: runs.append(1))
    _, (answer,), _ = ask([Request(layers=["nope"])], net)
    assert isinstance(answer, ValueError)
    assert len(runs) == 1  # to make the plan; the probe has five batches


def test_a_kernel_that_cannot_be_compared_leaves_that_of_others():
    wanted = KernelRequest(2, 3)
    nothing = wanted._replace(parameters=["nope"])
    requests = [Request(kernel=each) for each in (nothing, wanted)]
    bad, good = ask(requests, kind=GradientPass)[1]
    (expected,) = ask(requests[1:], kind=GradientPass)[1]
    assert "nope" in str(bad)
    assert torch.equal(good.kernel.kernel, expected.kernel.kernel)


@pytest.fixture(scope="module")
def by_two():
    return run_processes(isolated.run_all, 2)


def assert_siblings(found, alone):
    for answer, expected in zip((found[0], found[2]), alone, strict=True):
        assert_equal(answer, expected, tolerance=1e-12)


def assert_told(answer, says, rank, where):
    """A process that has failed says so itself, another has it from the last one that has."""
    assert says in answer
    if rank not in where:
        said = f"{MeasurementError.__name__}: process {max(where)} raised "
        assert answer.startswith(said)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANNED)
def test_what_no_process_can_plan_costs_one_reduction_on_each(name, by_two, alone):
    for found in by_two:
        answers, sent = found[name]
        assert PLANNED[name][1] in answers[1]
        assert_siblings(answers, alone)
        assert sent == TOLD[1]


@pytest.mark.slow
@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("name", LOOKED_AT)
def test_what_one_process_cannot_plan_all_plan_without(name, on, by_two, alone):
    expected = {"no process": MEASURED, "both": TOLD[1]}.get(on, PLANNED_AGAIN)
    for rank, found in enumerate(by_two):
        answers, sent = found[name, on]
        assert sent == expected
        assert_siblings(answers, alone)
        if ON[on]:
            assert_told(answers[1], LOOKED_AT[name][1], rank, ON[on])


@pytest.mark.slow
@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("name", SWEPT | SWEPT_AGAIN)
def test_what_fails_in_a_sweep_on_some_processes_fails_on_all(name, on, by_two, alone):
    _, says, in_sweep = (SWEPT | SWEPT_AGAIN)[name]
    for rank, found in enumerate(by_two):
        answers, sent = found[name, on]
        assert_siblings(answers, alone)
        assert sent == (TOLD[in_sweep] if ON[on] else MEASURED)
        if ON[on]:
            assert_told(answers[1], says, rank, ON[on])
        else:
            assert isinstance(answers[1], dict)


@pytest.mark.slow
@pytest.mark.parametrize("on", ON)
def test_decisions_that_fail_on_some_processes_cost_those_who_ask_for_them(on, by_two):
    expected = values(ask([Request(layers="blocks")])[1][0])
    for rank, found in enumerate(by_two):
        (answer, bad), sent = found["decisions", on]
        assert_equal(answer, expected, tolerance=1e-12)
        assert sent == (TOLD[1] if ON[on] else MEASURED)
        if ON[on]:
            assert_told(bad, "parse", rank, ON[on])


@pytest.mark.slow
@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("name", ["a pool at the first look", "a pool"])
def test_a_network_that_communicates_when_it_runs_waits_for_nobody(name, on, by_two, alone):
    for rank, found in enumerate(by_two):
        answers, _ = found[name, on, "sharded"]
        assert_siblings(answers, alone)
        if ON[on]:
            assert_told(answers[1], (LOOKED_AT | SWEPT)[name][1], rank, ON[on])


@pytest.mark.slow
@pytest.mark.parametrize("on", ["process 0", "process 1", "both"])
def test_the_cause_is_told_also_if_a_process_can_never_read_what_gradients_need(on, by_two):
    for rank, found in enumerate(by_two):
        assert_told(found["gradients", on], "the disk is gone", rank, ON[on])


def test_what_another_process_has_told_is_not_told_as_an_error_of_this_one():
    assert told_by(1, OSError("no disk")) == "process 1 raised OSError: no disk"
    assert told_by(0, MeasurementError(told_by(1, OSError("no disk")))) == (
        "process 1 raised OSError: no disk"
    )
