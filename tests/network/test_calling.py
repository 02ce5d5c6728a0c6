"""How networks of many forms are called, and what is said where it cannot be told."""

import operator
import re

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import NeuralCollapse, Probe, measure
from lightning_nc.network.calling import call_model, calling

X = torch.rand(4, 3)


class TwoViews(nn.Module):
    def forward(self, a, b):
        return a + b


class Tokens(nn.Module):
    def forward(self, input_ids, attention_mask=None, *, scale=1):
        return input_ids if attention_mask is None else input_ids * attention_mask


class Graph:
    """As a graph of torch_geometric, it holds what networks take, and more."""

    def __init__(self):
        self.x, self.edge_index, self.batch, self.y = X, 2 * X, None, 3


GRAPH = Graph()


class Anything(nn.Module):
    def forward(self, *args, **kwargs):
        return (args, kwargs)


class OfFeatures(nn.Module):
    """As networks for tables, it takes a dict."""

    def forward(self, features):
        return features["category"] * features["number"]


class OfGraphs(nn.Module):
    def forward(self, x, edge_index, batch=None):
        return x + edge_index


CALLS = {
    "parts of an object by their names": (OfGraphs(), GRAPH, 3 * X),
    "an object": (nn.Identity(), GRAPH, GRAPH),
    "a tensor": (nn.Identity(), X, X),
    "a tuple": (TwoViews(), (X, X), 2 * X),
    "keywords": (Tokens(), {"input_ids": X, "attention_mask": 2 * X}, 2 * X * X),
    "keywords that are not named": (Tokens(), {"input_ids": X, "index": 3}, X),
    "one value under another name": (nn.Identity(), {"image": X}, X),
    "the only tensor of several axes": (
        nn.Identity(),
        {"weight": X[:, 0], "image": X, "index": torch.arange(4), "file": ["a"] * 4},
        X,
    ),
    "a dict": (OfFeatures(), {"category": X, "number": 2 * X}, 2 * X * X),
    "a dict of vectors": (OfFeatures(), {"category": X[0], "number": X[1]}, X[0] * X[1]),
    "a tuple in a tuple": (nn.Identity(), ((X, X),), (X, X)),
    "all keywords": (Anything(), {"ids": X, "mask": X}, ((), {"ids": X, "mask": X})),
    "a keyword that may be an argument": (Anything(), {"image": X}, ((X,), {})),
    "all arguments": (Anything(), [X, 3], ((X, 3), {})),
}


@pytest.mark.parametrize("case", CALLS)
def test_networks_are_called_with_what_they_take(case):
    model, inputs, expected = CALLS[case]
    same = torch.equal if isinstance(expected, torch.Tensor) else operator.eq
    assert same(call_model(model, inputs), expected)


class Everything(nn.Module):
    def forward(self, **batch):
        return batch["image"] * batch["scale"]


def test_keywords_that_are_called_batch_are_inputs_and_no_whole_batch():
    way = calling(Everything())
    inputs = {"image": X, "scale": 2}
    assert way.inputs_of({**inputs, "labels": None}, inputs) is inputs
    assert torch.equal(way.function(inputs), 2 * X)


def test_what_a_network_takes_comes_first():
    """The first floating-point tensor of the inputs is layer 0, and where gradients begin."""
    net, inputs = nn.Linear(3, 2), {"weight": X[:, 0], "index": 3, "input": X}
    assert list(calling(net).inputs_of(None, inputs)) == ["input", "weight", "index"]
    assert calling(net).inputs_of(None, {"weight": X[:, 0], "image": X})[0] is X
    assert calling(net, lambda net, inputs: net(inputs["input"])).inputs_of(None, inputs) is inputs


class HandsOn(nn.Module):
    """As a wrapper, it hands all that it is given on to another network."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)


class OfTask(nn.Linear):
    def forward(self, x, task=None):
        return super().forward(x) if task is None or task == 0 else x


MISUNDERSTOOD = {
    "an index for inputs": (nn.Linear(3, 2), torch.arange(4), "int64 of shape (4,)"),
    "tokens for vectors": (nn.Embedding(3, 2), X, "float32 of shape (4, 3)"),
    "inputs and labels for inputs": (OfTask(3, 2), [X, torch.arange(4)], "2 items: float32"),
    "a key that is missing": (Everything(), {"image": X}, "KeyError: 'scale'. The network was"),
    "keys of another network": (HandsOn(nn.Linear(3, 2)), {"a": X, "b": X}, "dict of 'a'"),
}


@pytest.mark.parametrize("case", MISUNDERSTOOD)
def test_what_a_network_was_called_with_is_said_if_it_takes_something_else(case):
    net, inputs, words = MISUNDERSTOOD[case]
    with pytest.raises((RuntimeError, TypeError)) as raised:
        calling(net).function(inputs)
    for word in (words, "The network was called with", "unpack=", "forward="):
        assert str(raised.value).count(word) == 1


@pytest.mark.parametrize("net", [nn.Linear(5, 2), nn.Conv2d(5, 2, 3)])
def test_what_an_error_of_sizes_comes_from_is_said(net):
    inputs = X if isinstance(net, nn.Linear) else torch.rand(4, 3, 8, 8)
    with pytest.raises(RuntimeError) as raised:
        calling(net).function(inputs)
    for word in ("called with float32 of shape (4, 3", "unpack=", "forward="):
        assert word in str(raised.value)


@pytest.mark.parametrize("whole", [torch.uint8, torch.int64])
@pytest.mark.parametrize("net", [nn.Linear(8, 2), nn.Conv2d(3, 2, 3), nn.LayerNorm(8)])
def test_of_labels_or_unscaled_images_for_inputs_is_said_what_they_are(net, whole):
    with pytest.raises(RuntimeError, match=r"called with .* of shape .* unpack=") as raised:
        calling(net).function(torch.zeros(4, 3, 8, 8, dtype=whole))
    assert str(whole).removeprefix("torch.") in str(raised.value)


def test_several_inputs_whose_sizes_do_not_fit_are_a_tuple():
    way = calling(TwoViews())
    with pytest.raises(RuntimeError, match="called with a tuple of 2 items: float32 of shape"):
        way.function(way.named((X, X[:, :2])))


REFUSED = {
    "two views": (
        nn.Linear(3, 2),
        (X, X),
        ["forward(input", "tuple of 2 items", "(4, 3)", "first of two views", "(batch[0][0],"],
    ),
    "a key of another name beside a parameter that has a default": (
        Tokens(),
        {"file": ["a"] * 4, "tokens": X},
        ["forward(input_ids", "'file'", "'tokens'", '(batch["tokens"], labels)'],
    ),
    "a dict for a tensor": (
        nn.Linear(3, 2),
        {"image": X, "boxes": X},
        ["forward(input", "called with a dict of 'image'", "TypeError", 'batch["..."], labels)'],
    ),
    "a tensor for a dict": (
        OfFeatures(),
        {"image": X, "age": X[:, 0]},
        ["forward(features", "called with float32 of shape (4, 3)", "((batch,), labels)"],
    ),
    "an argument too few": (
        TwoViews(),
        X,
        ["forward(a, b)", "float32 of shape (4, 3)", "((x, ...), labels)", "forward=lambda"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_network_does_not_take_is_named_with_the_way_out(case):
    model, inputs, words = REFUSED[case]
    with pytest.raises(TypeError) as raised:
        call_model(model, inputs)
    assert [word for word in words if word not in str(raised.value)] == [], str(raised.value)


def test_errors_of_the_network_itself_are_its_own():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        call_model(nn.Linear(5, 2), X)


class Wrapper(nn.Module):
    """Counts the calls that go through it, as those of a sharded network must."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        return self.inner(*args, **kwargs)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 2)

    def encode(self, x):
        return self.net(2 * x)

    def step(self, batch, batch_idx):
        return self.net(batch[0]) + batch_idx


class WithForward(Parts):
    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("kind", [Parts, WithForward])
@pytest.mark.parametrize(
    ("forward", "scale"),
    [("net", 1), ("encode", 2), (lambda module, x: module.net(3 * x), 3)],
    ids=["submodule", "method", "function"],
)
def test_calls_of_a_part_go_through_the_wrapper_and_leave_it_as_it_was(kind, forward, scale):
    model = kind()
    wrapper = Wrapper(model)
    for function in (calling(model, forward).function, calling(model, forward, wrapper).function):
        torch.testing.assert_close(function(X), model.net(scale * X))
    assert wrapper.calls == 1
    assert "forward" not in vars(model)
    torch.testing.assert_close(calling(model, forward, model).function(X), model.net(scale * X))
    with pytest.raises(RuntimeError, match="mat1"):
        calling(model, forward, wrapper).function(X[:, :2])
    assert "forward" not in vars(model)
    wrapper.inner = None  # it fails before it comes to the network
    with pytest.raises(TypeError):
        calling(model, forward, wrapper).function(X)
    assert "forward" not in vars(model)


def test_the_parameters_of_the_network_count_within_a_wrapper_that_takes_all():
    model = WithForward()
    wrapper = Wrapper(model)
    assert calling(model, None, wrapper).function({"image": X}).shape == (4, 2)
    with pytest.raises(TypeError, match=r"forward\(x\)"):
        calling(model, None, wrapper).function((X, X))


def test_a_method_that_takes_the_batch_is_given_it_with_its_number():
    model = Parts()
    way = calling(model, "step")
    inputs = way.inputs_of([X, 5], X)
    assert inputs == ([X, 5], 0)
    assert torch.equal(way.function(inputs), model.net(X))


@pytest.mark.parametrize("name", ["nett", "net.weight", "net.spare"])
def test_a_name_that_cannot_be_called_is_named(name):
    with pytest.raises(ValueError, match=rf"'{name}' is no submodule or method of Parts.*'net'"):
        calling(Parts(), name).function(X)


class Steepest(nn.Module):
    """Moves its input along a gradient, and needs those of torch when it is called."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 8), nn.Linear(5, 3)

    def forward(self, x):
        x = x.detach().requires_grad_(True)
        return self.head(x + torch.autograd.grad(self.body(x).square().sum(), x)[0])


def test_a_network_that_takes_gradients_is_told_how_to_be_called_and_then_measured():
    model, data = Steepest(), (torch.randn(12, 5), torch.arange(12) % 3)
    with torch.enable_grad():
        right = model(data[0]).argmax(1) == data[1]
    way = "lambda module, inputs: torch.enable_grad()(module)(inputs)"
    with pytest.raises(RuntimeError, match=re.escape(f"Probe(..., forward={way})")):
        measure(model, data, measures=[NeuralCollapse()])
    probe = Probe(TensorDataset(*data), "data", forward=eval(way))
    values = measure(model, probe, measures=[NeuralCollapse()]).values
    assert values["nc/data/accuracy"] == right.double().mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_inputs_of_another_type_than_the_network_are_told_with_the_way_out(dtype):
    name = str(dtype).removeprefix("torch.")
    model = nn.Linear(3, 2).to(dtype)
    sentence = (
        rf"inputs are float32, but .* are {name}: mat1 .*net\.float\(\), .* inputs are {name}"
    )
    with pytest.raises(TypeError, match=sentence) as told:
        calling(model).function(torch.zeros(4, 3))
    assert isinstance(told.value.__cause__, RuntimeError)
    own = r"^(addmm: )?mat1 and mat2 shapes"  # of one type, torch speaks for itself
    with pytest.raises(RuntimeError, match=own):
        calling(model).function(torch.zeros(4, 5, dtype=dtype))


def test_an_error_of_the_network_that_speaks_of_types_is_its_own():
    def forward(module, inputs):
        raise RuntimeError("no such type of scan")

    with pytest.raises(RuntimeError, match=r"^no such type of scan$"):
        calling(nn.Linear(3, 2), forward).function(X)
