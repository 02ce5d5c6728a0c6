"""What these checks rely on: true of any card, and of the stand-in for one."""

import copy

import pytest
import torch
from torch import nn

from tests.gpu import syncs
from tests.gpu.device import needs_cuda, only_our_warnings

pytestmark = [only_our_warnings, needs_cuda("its own properties")]


def test_tensors_of_two_devices_do_not_mix():
    x = torch.ones(3, device="cuda")
    assert x.is_cuda
    assert x.device == torch.device("cuda", 0)
    for work in (lambda: x + torch.ones(3), lambda: torch.cat([x, torch.ones(3)])):
        with pytest.raises(RuntimeError, match="on the same device"):
            work()
    assert (x + torch.tensor(1.0)).tolist() == [2, 2, 2]  # numbers may come from anywhere


def test_gradients_are_those_of_the_cpu():
    x, net = torch.randn(9, 4), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh())
    on_card = copy.deepcopy(net).cuda()
    for each, device in ((net, "cpu"), (on_card, "cuda")):
        each(x.to(device)).square().sum().backward()
    for a, b in zip(net.parameters(), on_card.parameters(), strict=True):
        assert b.grad.is_cuda
        torch.testing.assert_close(a.grad, b.grad.cpu())


def test_views_share_memory():
    x = torch.zeros(3, 4, device="cuda")
    x.t()[1] = 5
    x.view(-1)[::6].add_(1)
    assert x.tolist() == [[1, 5, 0, 0], [0, 5, 1, 0], [0, 5, 0, 0]]
    assert copy.deepcopy(x).add_(1).is_cuda
    assert x.max() == 5


def test_memory_is_counted_and_has_an_end():
    before = torch.cuda.memory_allocated()
    kept = torch.ones(1000, dtype=torch.float64, device="cuda")
    assert 8000 <= torch.cuda.memory_allocated() - before < 9000
    del kept
    assert torch.cuda.memory_allocated() == before
    whole = torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        torch.empty(whole + 1, dtype=torch.uint8, device="cuda")


def test_random_numbers_are_its_own():
    torch.manual_seed(3)
    state = torch.cuda.get_rng_state()

    def draw():
        ones = torch.ones(9, device="cuda")
        return torch.rand(2, device="cuda"), nn.functional.dropout(ones, 0.5)

    before, drawn = torch.get_rng_state(), draw()
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(state, torch.cuda.get_rng_state())
    torch.cuda.set_rng_state(state)
    assert all(map(torch.equal, drawn, draw()))


READS = {
    "a number": lambda x: x.sum().item(),
    "how many there are": lambda x: x[x > 1],
    "a copy": lambda x: x.cpu(),
    "whether they are equal": lambda x: torch.equal(x, x),
}


@pytest.mark.parametrize("what", READS)
def test_the_host_waits_for_what_it_reads(what):
    x = torch.arange(4.0, device="cuda")
    assert sum(syncs.places(lambda: READS[what](x)).values()) >= 1


def test_the_host_does_not_wait_for_what_it_does_not_read():
    x, on_host = torch.arange(4.0, device="cuda"), torch.ones(4).pin_memory()

    def work():
        (x @ x).sqrt_()
        on_host.to("cuda", non_blocking=True)

    work()
    assert not syncs.places(work)
