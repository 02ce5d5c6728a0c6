import argparse
import random
from functools import partial
from types import MethodType

import numpy as np
import pytest
import torch

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
