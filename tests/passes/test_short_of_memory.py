"""Layers are measured in groups where the device has no room for all of them at once."""

import warnings

import pytest
import torch
from torch import nn

from lightning_nc import Probe, measure
from lightning_nc.passes import geometry_pass
from tests import nets
from tests.passes import short_of_memory
from tests.processes import run_processes
from tests.traces import difference

SAID = "the device has {} MB free, so layers are measured in {} groups, one after another"


def measured(free, monkeypatch, **options):
    """Values with so many MB free, what is told, and how often each group's layers were swept."""
    swept = []
    sweep = geometry_pass.sweep
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        patch.setattr(geometry_pass, "has_own_memory", lambda device: True)
        patch.setattr(geometry_pass, "free_megabytes", lambda device: free)
        patch.setattr(
            geometry_pass, "sweep", lambda *args: swept.append(len(args[2])) or sweep(*args)
        )
        torch.manual_seed(0)
        layers = [part for _ in range(3) for part in (nn.Linear(6, 6), nn.Tanh())]
        net = nn.Sequential(*layers, nn.Linear(6, 3))
        probe = Probe(nets.vectors(), "p", samples_per_class=None, **options)
        values = measure(net, probe).values
    return values, [str(w.message) for w in told], swept


@pytest.mark.parametrize(("cache_mb", "sweeps"), [(512, 1), (0, 2)])
def test_values_are_those_of_all_layers_at_once(cache_mb, sweeps, monkeypatch):
    at_once, told, swept = measured(1e4, monkeypatch, cache_mb=cache_mb)
    assert told == []
    assert len(swept) == sweeps
    in_groups, told, swept = measured(2.6e-3, monkeypatch, cache_mb=cache_mb)
    assert difference(at_once, in_groups) is None
    groups = len(swept) // sweeps
    assert 1 < groups < 4
    assert [SAID.format(0.0026, groups) in text for text in told] == [True]


def test_a_layer_that_takes_more_than_is_free_is_tried_by_itself(monkeypatch):
    values, _, swept = measured(0, monkeypatch)
    assert swept == [1] * len(swept)
    assert len(swept) > 3
    assert difference(values, measured(1e4, monkeypatch)[0]) is None


def test_the_budget_of_the_probe_holds_where_more_is_free(monkeypatch):
    _, told, swept = measured(1e4, monkeypatch, memory_mb=1.5e-3)
    assert len(swept) > 1
    assert told == []


@pytest.mark.slow
@pytest.mark.filterwarnings(*nets.only_our_warnings)
def test_the_process_with_the_least_memory_decides_for_all():
    first, second = run_processes(short_of_memory.run_with_little_on_the_second, 2)
    for (enough, told_before), (short, told) in (first, second):
        assert difference(enough, short) is None
        assert told_before == []
        assert told == [] or "groups, one after another" in told[0]
    assert [len(told) for _, (_, told) in (first, second)] == [1, 0]
