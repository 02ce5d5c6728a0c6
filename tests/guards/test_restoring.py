"""Whatever fails while a guard restores, all else is restored, and what is not is told."""

import random
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lightning_nc import measure
from lightning_nc.guards.buffers import buffers_kept
from lightning_nc.guards.generators import generators_kept
from lightning_nc.guards.hooks import hooks_kept
from lightning_nc.guards.modes import modes_set
from lightning_nc.guards.parameters import parameters_watched
from lightning_nc.guards.restoring import NotRestored, restoring
from lightning_nc.guards.unobtrusive import unobtrusive
from tests import nets


class Broken(Exception):
    pass


def restore(*steps, done=None, raises=None):
    """Restore things, each given by a name, what it raises, and how often."""
    done = [] if done is None else done
    with restoring() as later:
        for name, error, times in steps:
            later(name, step, name, error, [times], done)
        if raises is not None:
            raise raises


def step(name, error, left, done):
    left[0] -= 1
    if left[0] >= 0:
        raise error
    done.append(name)


def test_all_is_restored_in_order_and_what_is_not_is_named():
    done, why = [], Broken("why")
    with pytest.raises(NotRestored, match=r"^b, c could not be restored .*\(.*Broken: why\)"):
        restore(("a", why, 0), ("b", why, 2), ("c", why, 2), ("d", why, 0), done=done)
    assert done == ["a", "d"]


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt, SystemExit])
def test_what_is_broken_off_once_is_restored_after_all(error):
    done, signals = [], error is not Broken
    with pytest.raises(error) if signals else nullcontext():
        restore(("a", error, 0), ("b", error, 1), ("c", error, 0), done=done)
    assert done == ["a", "b", "c"]


def test_an_interruption_again_and_again_ends():
    done = []
    with pytest.warns(RuntimeWarning, match="a could not be"), pytest.raises(KeyboardInterrupt):
        restore(("a", KeyboardInterrupt, 99), ("b", Broken, 0), done=done)
    assert done == ["b"]


def test_an_error_on_its_way_is_not_replaced():
    with pytest.warns(RuntimeWarning, match="a could not be restored"), pytest.raises(KeyError):
        restore(("a", Broken, 2), raises=KeyError)


def test_what_is_not_restored_is_an_error_while_the_program_handles_another():
    try:
        raise KeyError
    except KeyError:  # a measurement in a handler, as after a failed epoch
        with pytest.raises(NotRestored, match="a could not be restored"):
            restore(("a", Broken, 2))


def test_of_many_things_three_are_named():
    assert str(NotRestored(dict.fromkeys("abc", "why"))).startswith("a, b, c could not be")
    assert str(NotRestored(dict.fromkeys("abcde", "why"))).startswith("a, b, c and 2 more could")


@pytest.mark.filterwarnings("error")
def test_an_error_on_its_way_is_not_replaced_by_a_warning():
    with pytest.raises(KeyError):
        restore(("a", Broken, 2), raises=KeyError)


def test_one_error_names_what_guards_within_each_other_could_not_restore():
    @restoring()
    def inner():
        restore(("inner", Broken, 2))

    def outer():
        with restoring() as later:
            later("outer", step, "", Broken, [2], [])
            inner()

    with pytest.raises(NotRestored) as raised:
        outer()
    assert list(raised.value.reasons) == ["inner", "outer"]


def test_an_error_that_cannot_be_shown_is_told_all_the_same():
    class Mute(Exception):
        def __str__(self):
            raise Broken

    with pytest.raises(NotRestored, match=r"a could not be restored .*Mute"):
        restore(("a", Mute(), 2))


class Stuck(dict):
    """A dictionary that cannot be put back."""

    def clear(self):
        raise Broken("stuck")


class StuckGenerator(random.Random):
    def setstate(self, state):
        raise Broken("stuck")


class StuckMode(nn.Identity):
    def __setattr__(self, name, value):
        if name == "training" and value and "training" in vars(self):
            raise Broken("stuck")
        super().__setattr__(name, value)


class StuckBuffer(torch.Tensor):
    """A tensor that cannot be put back."""

    def detach(self):
        return self.as_subclass(torch.Tensor).detach()

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, _):
        raise Broken("stuck")

    def copy_(self, other):
        raise RuntimeError("stuck")


def buffers():
    net = nn.Module()
    net.register_buffer("first", torch.zeros(2))
    net.register_buffer("second", torch.zeros(2).as_subclass(StuckBuffer))
    net.register_buffer("third", torch.zeros(2))

    def change():
        for buffer in net.buffers():
            buffer.fill_(1)

    return buffers_kept(net), change, "the buffer second", lambda: not (net.first + net.third).any()


def parts():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    net[0]._buffers = Stuck(net[0]._buffers)

    def change():
        for norm in net:
            norm.running_mean = None

    return buffers_kept(net), change, "parts of module '0'", lambda: net[1].running_mean is not None


def hooks():
    net = nn.Sequential(nn.Identity(), nn.Identity())
    net[0]._forward_hooks = Stuck()

    def change():
        for part in net:
            part.register_forward_hook(print)

    return hooks_kept(net), change, "the hooks of a Identity", lambda: not net[1]._forward_hooks


def modes():
    net = nn.Sequential(nn.Identity(), StuckMode(), nn.Identity())
    guard = modes_set(dict.fromkeys(net, False))
    return guard, lambda: None, "the mode of a StuckMode", lambda: net[0].training & net[2].training


def generators():
    held = [random.Random(3), StuckGenerator(), random.Random(3)]
    guard = generators_kept(held)
    states = random.getstate(), held[0].getstate()

    def change():
        for generator in (random, *held):
            generator.random()

    what = "a StuckGenerator of the data or the network"
    return guard, change, what, lambda: states == (random.getstate(), held[2].getstate())


def parameters():
    net = nn.ParameterList([torch.zeros(2), torch.zeros(2), torch.zeros(2)])
    net[1].__class__ = type("Stuck", (nn.Parameter,), {"data": StuckBuffer.data})

    def change():
        for parameter in (net[0], net[2]):
            parameter.data = torch.ones(2)
        nn.Parameter.data.__set__(net[1], torch.ones(3))

    return parameters_watched(net), change, "the parameter 1", lambda: not (net[0] + net[2]).any()


@pytest.mark.parametrize("case", [buffers, parts, hooks, modes, generators, parameters])
def test_every_guard_goes_on_and_names_what_it_could_not_restore(case):
    guard, change, what, restored = case()
    with pytest.raises(NotRestored, match=what), guard:
        change()
    assert restored()


def test_all_guards_go_on_together():
    net = nn.Sequential(StuckMode(), nn.BatchNorm1d(2), nn.Identity())
    net.noise = StuckGenerator()
    net[2]._forward_hooks = Stuck()
    before = torch.get_rng_state()

    def change():
        net[1].running_mean += torch.rand(2)
        net[1].register_forward_hook(print)
        net[2].register_forward_hook(print)
        net.noise.random()

    with pytest.raises(NotRestored) as raised, unobtrusive(net):
        change()
    assert sorted(raised.value.reasons) == [
        "a StuckGenerator of the data or the network",
        "the hooks of a Identity",
        "the mode of a StuckMode",
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert not net[1].running_mean.any()
    assert not net[1]._forward_hooks
    assert net[1].training
    assert net.training


def test_a_measurement_says_at_run_time_what_is_not_restored():
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), StuckMode(), nn.Linear(4, 3))
    with pytest.raises(NotRestored, match=r"the mode of a StuckMode .*Train without the callback"):
        measure(net, nets.vectors())
    assert net[1].training
