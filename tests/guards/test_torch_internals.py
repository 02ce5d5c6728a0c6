"""Names of torch that are not public are taken away: what depends on them still works."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_nc.guards import torch_internals
from lightning_nc.guards.buffers import buffers_kept
from lightning_nc.tangent.convolution import _padding


class OwnNorm(nn.modules.batchnorm._BatchNorm):
    def _check_input_dim(self, x):
        pass


class Overridden(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight, bias) * 2


def test_writes_are_counted():
    x = torch.zeros(3)
    before = torch_internals.writes_so_far(x)
    assert torch_internals.writes_so_far(x) == before
    x.add_(1)
    assert torch_internals.writes_so_far(x) != before


def test_without_the_counter_every_tensor_counts_as_written_to():
    class Bare:
        pass

    before = torch_internals.writes_so_far(Bare())
    assert torch_internals.writes_so_far(Bare()) != before
    assert [before] != [torch_internals.writes_so_far(Bare())]


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm3d, nn.SyncBatchNorm])
def test_batch_norms_are_found_also_without_their_base(norm, monkeypatch):
    kinds = [norm(2), OwnNorm(2), nn.GroupNorm(1, 2)]
    assert [*map(torch_internals.is_batch_norm, kinds)] == [True, True, False]
    monkeypatch.delattr(nn.modules.batchnorm, "_BatchNorm")
    assert [*map(torch_internals.is_batch_norm, kinds)] == [True, False, False]


def test_contents_of_buffers_are_put_back_also_without_the_dictionaries(monkeypatch):
    def hidden(self, name):
        if name in ("_buffers", "_modules", "_parameters") and asks(torch_internals):
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    norm = nn.BatchNorm1d(2)
    monkeypatch.setattr(nn.BatchNorm1d, "__getattribute__", hidden, raising=False)
    with buffers_kept(norm):
        norm(torch.arange(6.0).view(3, 2))
        assert norm.running_mean.any()
    assert not norm.running_mean.any()


def asks(module):
    import sys

    return sys._getframe(2).f_code.co_filename == module.__file__


def test_a_convolution_that_is_overridden_is_not_taken_for_one(monkeypatch):
    alike = torch_internals.convolves_like
    assert alike(nn.Conv2d(1, 1, 1), nn.Conv2d)
    assert not alike(nn.Conv2d(1, 1, 1), nn.Conv1d)
    assert not alike(Overridden(1, 1, 1), nn.Conv2d)
    monkeypatch.delattr(nn.Conv2d, "_conv_forward")
    assert alike(nn.Conv2d(1, 1, 1), nn.Conv2d)


def test_hooks_are_off_and_then_there_again_in_their_order(monkeypatch):
    called = []
    net = nn.Sequential(nn.ReLU())
    for name, module in net.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        module.register_forward_pre_hook(lambda *_, name=name: called.append(f"before {name}"))
    x = torch.zeros(1)
    with torch_internals.hooks_off(net):
        net(x)
    assert called == []
    net(x)
    assert called == ["before ", "before 0", "0", ""]

    def hidden(self, name):
        if name.endswith("_hooks") and asks(torch_internals):
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(nn.Module, "__getattribute__", hidden, raising=False)
    with torch_internals.hooks_off(net):
        net(x)
    assert len(called) == 8  # they are called


@pytest.mark.parametrize("padding", [0, 2, (1, 3), "same", "valid"])
@pytest.mark.parametrize("kernel", [3, 4, (2, 5)])
def test_padding_is_that_of_torch(padding, kernel):
    module = nn.Conv2d(1, 1, kernel, padding=padding, dilation=(1, 2))
    assert _padding(module) == list(module._reversed_padding_repeated_twice)


def test_the_names_are_used_nowhere_else():
    names = {"_version", "_buffers", "_modules", "_parameters", "_BatchNorm", "_conv_forward"}
    names |= {"_DropoutNd", "_pytree", "_reversed_padding_repeated_twice"}
    names |= {"_forward_hooks", "_forward_pre_hooks"}
    package = Path(torch_internals.__file__).parents[1]
    found = {
        path.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.Constant) and node.value in names)
        or (isinstance(node, ast.ImportFrom) and names & {*(node.module or "").split(".")})
    }
    assert found == {"torch_internals.py"}
