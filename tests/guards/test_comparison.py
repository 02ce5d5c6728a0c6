"""Pairs of tensors are compared, in one wait for each device."""

import pytest
import torch

from lightning_nc.guards.comparison import which_differ

ONES = torch.ones(3)


def test_tensors_differ_in_bits_and_in_shape():
    pairs = [
        (ONES, ONES.clone()),
        (ONES, torch.tensor([1.0, 1.0, 2.0])),
        (ONES, torch.ones(2)),
        (ONES, torch.ones(1, 3)),  # although they would broadcast
        (torch.tensor(torch.nan), torch.tensor(torch.nan)),
        (torch.zeros(1), -torch.zeros(1)),
        (torch.zeros(0), torch.zeros(0)),
        (torch.tensor([True]), torch.tensor([False])),
        (torch.tensor(2**62), torch.tensor(2**62 + 1)),
    ]
    assert which_differ(pairs) == [False, True, True, True, False, True, False, True, True]
    assert which_differ([]) == []


@pytest.mark.parametrize(
    "kind", [torch.bool, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.complex128]
)
def test_numbers_of_all_kinds_are_compared(kind):
    a, b = torch.zeros(3).to(kind), torch.tensor([0.0, 0.0, 1.0]).to(kind)
    assert which_differ([(a, a.clone()), (a, b)]) == [False, True]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_numbers_are_compared():
    a, b = (torch.quantize_per_tensor(x, 0.1, 0, torch.qint8) for x in (ONES, 2 * ONES))
    assert which_differ([(a, a.clone()), (a, b)]) == [False, True]


LAYOUTS = [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc]


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sparse_tensors_differ_in_values_and_in_indices(layout):
    size = (2, 2) if layout in (torch.sparse_bsr, torch.sparse_bsc) else None

    def sparse(*places):
        dense = torch.zeros(4, 4)
        dense[places] = 1
        return dense.to_sparse(layout=layout, blocksize=size)

    one, doubled = sparse([0], [3]), sparse([0], [3])
    doubled.values().mul_(2)
    pairs = [one.clone(), doubled, sparse([3], [0]), sparse([0, 2], [3, 1])]
    # the answers of others are not mixed up with those of the several parts
    around = [(ONES, ONES.clone()), *((one, other) for other in pairs), (ONES, ONES + 1)]
    assert which_differ(around) == [False, False, True, True, True, True]


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
def test_sparse_tensors_differ_in_size_and_in_the_number_of_values():
    places, values = torch.arange(2).repeat(2, 1), torch.ones(2)
    small, large = (
        torch.sparse_coo_tensor(places, values, (n, n), check_invariants=True) for n in (2, 3)
    )
    full = torch.eye(3).to_sparse()
    assert which_differ([(small, large), (large, full), (full, full.clone())]) == [
        True,
        True,
        False,
    ]
