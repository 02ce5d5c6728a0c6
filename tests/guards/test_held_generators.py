import argparse
import random
from functools import partial
from types import MethodType

import numpy as np
import pytest
import torch

from lightning_nc.functional import gradient_kernel
from lightning_nc.guards.generators import seed_generators
from tests.guards.test_guards import inside as inside  # a fixture
from tests.guards.test_guards import run_inside


class Holder:
    def __init__(self, **held):
        self.__dict__.update(held)


def _all_kinds():
    return {
        "numpy": np.random.default_rng(0),
        "legacy": np.random.RandomState(0),
        "python": random.Random(0),
        "torch": torch.Generator().manual_seed(0),
    }


def _draw_from(held):
    return (
        held["numpy"].random(),
        held["legacy"].rand(),
        held["python"].random(),
        torch.rand((), generator=held["torch"]).item(),
    )


def as_attribute(held):
    return Holder(**held)


def in_an_object_of_a_library(held):
    return Holder(inner=argparse.Namespace(**held))


def in_a_subset_of_a_concatenation(held):
    transforms = Holder(transforms=[Holder(inner=held)])
    base = torch.utils.data.TensorDataset(torch.zeros(4))
    base.transform = transforms
    return torch.utils.data.Subset(torch.utils.data.ConcatDataset([base, base]), [0, 5])


def by_a_short_and_a_long_way(held):
    item = Holder(transforms=[Holder(inner=Holder(rng=held))])
    base = Holder(transform=item, transforms=Holder(more=Holder(more=Holder(transform=item))))
    return torch.utils.data.Subset(Holder(dataset=Holder(dataset=base)), [0])


def in_a_cycle(held):
    holder = Holder(**held)
    holder.itself = [holder, {"again": holder}]
    return holder


def in_functions(held):
    def closed_over(batch):
        return batch, held["numpy"], defined_never

    if not held:
        defined_never = None
    bound = Holder(generator=held["legacy"], collate=None)
    bound.collate = MethodType(lambda self, batch: batch, bound)
    return [closed_over, bound.collate, partial(max, held["python"], key=held["torch"])]


@pytest.mark.parametrize(
    "wrap",
    [
        as_attribute,
        in_an_object_of_a_library,
        in_a_subset_of_a_concatenation,
        by_a_short_and_a_long_way,
        in_a_cycle,
        in_functions,
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_generators_held_by_the_data_are_put_back(fails, wrap):
    held, twins = _all_kinds(), _all_kinds()
    run_inside(fails, lambda: _draw_from(held), data=(wrap(held), None))
    assert _draw_from(held) == _draw_from(twins)


class Devices:
    """Stands in for two devices of a kind, of which this machine need not have any."""

    def __init__(self, kind=torch.Generator):
        self.generators = kind(), kind()

    def read(self):
        return [generator.get_state() for generator in self.generators]

    def write(self, states):
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)

    def seed(self, seed):
        for generator in self.generators:
            generator.manual_seed(seed)

    def draw(self):
        return [torch.rand((), generator=generator).item() for generator in self.generators]


class OfCard:
    """Stands in for the generator of a card, which remembers for cuDNN that it was written to."""

    def __init__(self, shared=None):
        self.shared, self.written_to = shared or torch.Generator(), False

    def graphsafe_get_state(self):
        return OfCard(self.shared)

    def get_state(self):
        return self.shared.get_state()

    def set_state(self, state):
        self.written_to = True
        self.shared.set_state(state)

    def manual_seed(self, seed):
        self.written_to = True
        self.shared.manual_seed(seed)


def test_generators_of_cards_are_put_back_and_not_themselves_written_to(inside):
    cards, drawn = Devices(OfCard), []

    def draw():
        seed_generators(1, 2)
        drawn.append([torch.rand((), generator=each.shared).item() for each in cards.generators])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "default_generators", cards.generators)
        before = cards.read()
        inside(draw)
        inside(draw)
        net = torch.nn.Linear(2, 3)
        gradient_kernel(net, torch.randn(4, 2))
    assert drawn[0] == drawn[1]
    assert all(map(torch.equal, before, cards.read()))
    assert not any(each.written_to for each in cards.generators)


@pytest.mark.parametrize("kind", ["xpu", "mps"])
def test_generators_of_all_devices_in_use_are_put_back(inside, kind):
    devices, torchs = Devices(), getattr(torch, kind)
    every = "" if kind == "mps" else "_all"
    with pytest.MonkeyPatch.context() as patch:
        if kind == "mps":
            patch.setattr(torch.backends.mps, "is_available", lambda: True)
        else:
            patch.setattr(torchs, "is_initialized", lambda: True)
        patch.setattr(torchs, f"get_rng_state{every}", devices.read)
        patch.setattr(torchs, f"set_rng_state{every}", devices.write)
        patch.setattr(torchs, f"manual_seed{every}", devices.seed)
        before = devices.read()
        drawn = []
        for _ in range(2):
            inside(lambda: (seed_generators(1, 2), drawn.append(devices.draw())))
        assert drawn[0] == drawn[1]
        assert all(map(torch.equal, before, devices.read()))


def test_devices_that_are_not_in_use_are_left_alone(inside):
    def initialise(*_):
        raise AssertionError("this would initialise the device")

    with pytest.MonkeyPatch.context() as patch:
        for torchs in (torch.cuda, torch.xpu):
            patch.setattr(torchs, "is_initialized", lambda: False)
            for name in ("get_rng_state_all", "set_rng_state_all", "manual_seed_all"):
                patch.setattr(torchs, name, initialise)
        generator = argparse.Namespace(graphsafe_get_state=initialise)
        patch.setattr(torch.cuda, "default_generators", (generator,))
        inside(partial(seed_generators, 1, 2))
