import copy
import weakref

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import Probe, find_blocks, measure
from lightning_nc.network.trace import trace
from tests import reference
from tests.architectures import CLASSES, Block


class _Outer(nn.Sequential):
    def __init__(self):
        super().__init__(Block())


class _DoubleBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(_Outer(), _Outer())

    def forward(self, x):
        return x + self.layers(x)


class _Tokens(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.shift, self.embedding = shift, nn.Embedding(60, 8)
        self.blocks = nn.Sequential(_DoubleBlock(), _DoubleBlock())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, ids):
        return self.head(self.blocks(self.embedding(ids.long() + self.shift)).mean(1)), ids


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("shift", [0, 1])
def test_tokens_that_are_changed_before_their_embedding_are_still_the_input(kind, shift):
    ids = torch.randint(0, 50, (4, 6), dtype=kind)
    assert find_blocks(_Tokens(shift), ids) == ["blocks.0", "blocks.1"]


class _FrozenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.relu = nn.BatchNorm1d(5), nn.ReLU()
        self.drop, self.head = nn.Dropout(), nn.Linear(5, CLASSES)
        self.norm.eval()
        self.norm.weight.requires_grad_(False)

    def forward(self, x):
        return self.head(self.drop(self.relu(self.norm(x))))


class _AtTime(nn.Module):
    """As the vector field of a neural differential equation, it takes a time first."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))

    def forward(self, t, x):
        return t * self.layers(x)


def test_a_number_before_the_inputs_is_no_raw_input(recwarn):
    x, y = torch.randn(12, 5), torch.arange(12) % 3
    probe = Probe(TensorDataset(x, y), "own", unpack=lambda b: ((torch.tensor(2.0), b[0]), b[1]))
    values = measure(_AtTime(), probe, layers=["input"], head=False).values
    D = reference.separation_fuzziness(x.double().numpy(), y.numpy())
    assert values["separation_layers/own/input"] == pytest.approx(D, rel=1e-9)
    assert find_blocks(_AtTime(), ((torch.tensor(2.0), x), y)) == ["input", "layers.1"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(fails):
    model = _FrozenNorm()
    batch = torch.randn(6, 3 if fails else 5)
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError, match="running_mean"):
            find_blocks(model, batch)
    else:
        find_blocks(model, batch)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()
    assert not batch.requires_grad


class _Remembering(nn.Module):
    """Keeps weak references to what it computed."""

    def __init__(self, differentiates=False):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)
        self.computed, self.differentiates = [], differentiates

    def forward(self, x):
        h = torch.tanh(self.first(x))
        self.computed.append(weakref.ref(h))
        if self.differentiates:
            with torch.enable_grad():
                (h,) = torch.autograd.grad(h.square().sum(), self.first.weight, create_graph=True)
        return self.last(h.square())


def test_a_trace_holds_no_activations():
    net = _Remembering()
    found = trace(net, torch.randn(4, 3), net)
    assert found.output is not None
    assert found.depends_on_input(set())
    assert [computed() for computed in net.computed] == [None]


def test_a_network_that_differentiates_in_its_forward_pass_is_traced():
    net = _Remembering(differentiates=True)
    found = trace(net, torch.randn(4, 3), net)
    assert [run.name for run in found.runs] == ["first", "last", ""]
    assert found.depends_on_input(set())


class _Shared(nn.Module):
    """Embeddings whose first columns are one vector, as pytorch_tabular has them."""

    def __init__(self):
        super().__init__()
        self.embed, self.shared = nn.Embedding(10, 8), nn.Parameter(torch.randn(1, 2))

    @property
    def weight(self):
        rows = self.embed.weight.data
        rows[:, :2] = self.shared
        return rows

    def forward(self, ids):
        h = self.embed(ids)
        h[..., :2] = self.shared
        return h


class _Fails(nn.Linear):
    """Properties that cannot be read."""

    @property
    def num_features(self):
        raise NotImplementedError

    @property
    def out_channels(self):
        raise RuntimeError


def test_what_properties_of_modules_write_is_put_back_and_their_failures_are_let_be():
    """A property is code of the user, and is not part of what a forward pass computes."""
    hidden = [nn.Sequential(_Fails(8, 8), nn.Tanh()) for _ in range(3)]
    model = nn.Sequential(_Shared(), *hidden, nn.Linear(8, CLASSES))
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    ids = torch.arange(40) % 10
    y = ids % CLASSES
    result = measure(model, TensorDataset(ids, y))
    assert result.values["nc/data/accuracy"] == float((model(ids).argmax(1) == y).double().mean())
    assert all(torch.equal(each, weights[name]) for name, each in model.state_dict().items())
