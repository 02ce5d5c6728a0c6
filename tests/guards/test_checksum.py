"""The checksum of parameters notices any change, moves among them."""

import pytest
import torch
from torch import nn

from lightning_nc.guards.parameters import Checksum
from lightning_nc.guards.unobtrusive import unobtrusive


def roll(w):
    w.copy_(w.roll(1, 0))


def swap(w):
    w[[0, 1], [0, 1]] = w[[1, 0], [1, 0]]


def transpose(w):
    w.copy_(w.mT.clone())


def flip(w):
    w.copy_(w.flip(1))


def change_signs_of_a_column(w):
    w[:, 1].neg_()


def change_signs_of_all(w):
    w.neg_()


def change_two_signs(w):
    w[0, 1].neg_()
    w[2, 3].neg_()


def change_one_bit(w):
    w.view(torch.int64 if w.dtype == torch.float64 else torch.int32)[1, 1] ^= 1


def bend(w):  # two steps back, one forward on either side: what sums by position do not see
    bits = w.view(torch.int64 if w.dtype == torch.float64 else torch.int32)
    bits[0, :3] += torch.tensor([1, -2, 1], dtype=bits.dtype)


CHANGES = [
    *(roll, swap, transpose, flip, change_signs_of_a_column, change_signs_of_all),
    *(change_two_signs, change_one_bit, bend),
]


def weights(kind=torch.float32):
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=kind)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("change", CHANGES)
def test_a_forward_pass_that_moves_or_changes_numbers_is_noticed(change, kind):
    net = nn.ParameterList([nn.Parameter(weights(kind))])
    with pytest.raises(RuntimeError, match="changed the parameters 0 in place"), unobtrusive(net):
        change(net[0].data)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.complex64, torch.complex128])
@pytest.mark.parametrize("change", [roll, change_two_signs])
def test_numbers_of_all_kinds_are_watched(change, kind):
    w = weights().to(kind)
    before = Checksum()(w)
    assert torch.equal(before, Checksum()(w.clone()))
    change(w)
    assert not torch.equal(before, Checksum()(w))


def test_moves_over_a_long_way_are_noticed():
    w = torch.arange(3.0 * 2**14 + 5)
    before = Checksum()(w)
    assert len(before) == 4
    blocks = w[: 2**15].view(2, -1)
    blocks.copy_(blocks.flip(0))
    assert (before != Checksum()(w)).tolist() == [True, True, False, False]


@pytest.mark.parametrize("layout", ["channels last", "transposed", "every other", "expanded"])
def test_numbers_are_watched_in_any_order_in_memory(layout):
    w = {
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 4).mT,
        "every other": torch.randn(8, 3)[::2],
        "expanded": torch.randn(4, 1).expand(4, 3),
    }[layout]
    before = Checksum()(w)
    assert torch.equal(before, Checksum()(w))
    w[0, 0].neg_() if layout != "expanded" else w[:, :1].neg_()
    assert not torch.equal(before, Checksum()(w))


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_parameters_are_watched(layout):
    net = nn.ParameterList([nn.Parameter(torch.eye(3).to_sparse(layout=layout))])
    before = net[0]
    with unobtrusive(net):
        net[0].data = torch.ones(3, 3).to_sparse(layout=layout)
    assert net[0] is before
    assert torch.equal(before.to_dense(), torch.eye(3))
    values = (net[0]._values() if layout is torch.sparse_coo else net[0].values()).detach()
    with pytest.raises(RuntimeError, match="changed the parameters 0 in place"), unobtrusive(net):
        values[0] = 2


def test_empty_parameters_have_a_checksum():
    assert torch.equal(Checksum()(torch.zeros(0, 3)), Checksum()(torch.zeros(0, 3)))
