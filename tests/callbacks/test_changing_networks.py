"""A network that changes in training is measured as it is, on one process and on several."""

import pytest

from tests import nets
from tests.callbacks import changing_networks as runs
from tests.processes import run_processes

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def assert_as_it_is(logged, alone):
    assert len(logged) == len(alone) == 3
    for values, expected in zip(logged, alone, strict=True):
        of_layers = {k for k in expected if k.startswith("separation_layers/")}
        assert of_layers == {k for k in values if k.startswith("separation_layers/")}
        shared = values.keys() & expected.keys()
        assert of_layers | {"separation/train/rho", "nc/train/nc1", "nc/train/nc3"} <= shared
        assert {k: values[k] for k in shared} == pytest.approx(
            {k: expected[k] for k in shared}, rel=1e-9, abs=1e-12, nan_ok=True
        )


@pytest.mark.parametrize("change", runs.CHANGES)
def test_a_network_is_measured_as_it_is_after_it_has_changed(change):
    assert_as_it_is(*runs.measured(runs.CHANGES[change], 1))


@pytest.mark.slow
def test_two_processes_measure_a_network_that_has_changed():
    for by_name in run_processes(runs.measure_all, 2):
        for logged, alone in by_name.values():
            assert_as_it_is(logged, alone)
