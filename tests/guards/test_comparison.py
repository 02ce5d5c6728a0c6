"""Pairs of tensors are compared, in one wait for each device."""

import torch

from lightning_nc.guards.comparison import which_differ

ONES = torch.ones(3)


def test_tensors_differ_in_values_in_shape_and_where_they_are_nan():
    pairs = [
        (ONES, ONES.clone()),
        (ONES, torch.tensor([1.0, 1.0, 2.0])),
        (ONES, torch.ones(2)),
        (ONES, torch.ones(1, 3)),  # although they would broadcast
        (torch.tensor(torch.nan), torch.tensor(torch.nan)),
        (torch.zeros(0), torch.zeros(0)),
        (torch.tensor([True]), torch.tensor([False])),
        (torch.tensor(2**62), torch.tensor(2**62 + 1)),
    ]
    assert which_differ(pairs) == [False, True, True, True, True, False, True, True]
    assert which_differ([]) == []
