"""The head that acts: W and b, accuracy and NC4, whatever module computes the logits."""

import dataclasses
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.data import TensorDataset

from lightning_nc import EquiSeparation, LocalElasticity, NeuralCollapse, Probe, measure
from lightning_nc.network.head import read_head
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.request import Request
from tests import nets, reference

# old ways of torch that networks still use
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.nn.utils.weight_norm:FutureWarning",
    "ignore:.*quantization:DeprecationWarning",
    "ignore:.*quantized tensor creation functions:UserWarning",
)

DATA = nets.vectors((12, 9, 9), spread=3.0)
D, K = 10, 3


class LowRank(nn.Module):
    """A frozen linear layer and a low-rank adapter of two linear layers."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base
        self.A = nn.Linear(base.in_features, rank, bias=False)
        self.B = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + 0.5 * self.B(self.A(x))


class LowRankOfParameters(nn.Module):
    """The same of two plain parameters."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base
        self.A = nn.Parameter(torch.randn(rank, base.in_features))
        self.B = nn.Parameter(torch.randn(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.A.mT @ self.B.mT


class LowRankLinear(nn.Linear):
    """The same as one module."""

    def __init__(self, d, rows):
        super().__init__(d, rows)
        self.A, self.B = nn.Parameter(torch.randn(2, d)), nn.Parameter(torch.randn(rows, 2))

    def forward(self, x):
        return super().forward(x) + x @ self.A.mT @ self.B.mT


class Cosine(nn.Module):
    def __init__(self, d, rows):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, d))

    def forward(self, x):
        return 8 * F.normalize(x, dim=1) @ F.normalize(self.weight, dim=1).mT


class OfColumns(nn.Module):
    """Its weight has a column per class, as the head of LDAM, which is for long tails, has."""

    def __init__(self, d, rows, cosine=False):
        super().__init__()
        self.cosine, self.weight = cosine, nn.Parameter(torch.randn(d, rows))

    def forward(self, x):
        if self.cosine:
            return F.normalize(x, dim=1) @ F.normalize(self.weight, dim=0)
        return x @ self.weight


class FixedSimplex(nn.Module):
    """A classifier that does not learn, whose matrix is a buffer and not called weight."""

    def __init__(self, d, rows, cosine=False):
        super().__init__()
        self.cosine = cosine
        self.register_buffer("simplex", torch.randn(d, rows))

    def forward(self, x):
        return (F.normalize(x, dim=1) if self.cosine else x) @ self.simplex


def linear():
    return nn.Linear(D, K)


def patched():
    """With a forward method of its own, as some libraries install."""
    layer = linear()
    layer.forward = lambda x: 2 * nn.Linear.forward(layer, x) + x[:, :K]
    return layer


def normed(layer):
    norm = layer[-1]
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.2, 3)
        norm.bias.normal_(0, 3)
    return layer


FOUND = {  # as the head, without being named
    "linear": linear,
    "linear without bias": lambda: nn.Linear(D, K, bias=False),
    "weight_norm by hooks": lambda: nn.utils.weight_norm(linear()),
    "spectral_norm by hooks": lambda: nn.utils.spectral_norm(linear()),
    "weight_norm": lambda: parametrizations.weight_norm(linear()),
    "spectral_norm": lambda: parametrizations.spectral_norm(linear()),
    "low rank": lambda: LowRank(linear()),
    "low rank of parameters": lambda: LowRankOfParameters(linear()),
    "low rank in one module": lambda: LowRankLinear(D, K),
    "a forward of its own": patched,
    "a matrix in a buffer": lambda: FixedSimplex(D, K),
    "a column per class": lambda: OfColumns(D, K),
}
NAMED = {  # of several modules, which the name alone says
    "dropout and linear": lambda: nn.Sequential(nn.Dropout(0.5), linear()),
    "two linear layers": lambda: nn.Sequential(nn.Linear(D, D), linear()),
    "linear and BatchNorm": lambda: normed(nn.Sequential(linear(), nn.BatchNorm1d(K))),
    "dropout and weight_norm by hooks": lambda: nn.Sequential(
        nn.Dropout(0.5), nn.utils.weight_norm(linear())
    ),
}


class Network(nn.Module):
    def __init__(self, head, after=None):
        super().__init__()
        torch.manual_seed(3)
        self.body, self.head = nn.Sequential(nn.Linear(6, D), nn.Tanh()), head
        self.after = after or (lambda z: z)

    def forward(self, x):
        return self.after(self.head(self.body(x)))


def made(head, after=None):
    torch.manual_seed(4)
    return Network(head(), after).eval()


def ask(model, *requests, data=DATA, **probe):
    probe = Probe(data, "own", **{"batch_size": 7, "samples_per_class": None} | probe)
    runner = plain_runner(model, probe.forward)
    return GeometryPass(runner, lambda: data, probe, requests, Processes()).run()


def classifier(model, head=None, **options):
    (answer,) = ask(model, Request(classifier=True, head=head, needs_head=True), **options)
    if isinstance(answer, Exception):
        raise answer
    return answer.classifier


def effective(head):
    """W and b of an affine map, from its values, in the precision of its parameters."""
    one = torch.eye(D, dtype=next(chain(head.parameters(), head.buffers())).dtype)
    with torch.no_grad():
        b = head(torch.zeros(1, D, dtype=one.dtype)).double()
        return (head(one).double() - b).mT, b[0]


@pytest.mark.parametrize(
    ("name", "head"), [(n, h) for n in FOUND for h in (None, "head")] + [(n, "head") for n in NAMED]
)
def test_the_weight_that_acts_is_read(name, head):
    model = made((FOUND | NAMED)[name])
    found = classifier(model, head)
    W, b = effective(model.head)
    torch.testing.assert_close(found.weight, W, rtol=0, atol=1e-6 * float(W.abs().max()))
    if found.bias is None:
        assert not b.any()
    else:
        torch.testing.assert_close(found.bias, b, rtol=0, atol=2e-6)
    assert found.is_affine


@pytest.mark.parametrize("name", ["low rank", "low rank of parameters", "two linear layers"])
def test_parts_are_added_up_in_float64(name):
    model = made((FOUND | NAMED)[name])
    model.head.double()
    W, b = effective(model.head)
    model.head.float()
    found = classifier(model, "head")
    # the parameters are float32 numbers, and nothing else is rounded
    torch.testing.assert_close(found.weight, W, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(found.bias, b, rtol=1e-13, atol=1e-14)


ADJUSTMENT = torch.tensor([4.0, -2.0, 0.5])
AFTER = {
    "logits": lambda z: z,
    "log_softmax": lambda z: z.log_softmax(1),
    "softmax": lambda z: z.softmax(1),
    "a temperature": lambda z: z / 7,
    "logit adjustment": lambda z: z + ADJUSTMENT,
    "another decision": lambda z: -z,
    "a mapping": lambda z: {"loss": z.sum(), "logits": z + ADJUSTMENT},
    "a tuple": lambda z: (z + ADJUSTMENT, z),
    "half precision": lambda z: z.bfloat16(),
}


def outputs_of(model):
    with torch.no_grad():
        output = model(DATA.tensors[0])
    while not isinstance(output, torch.Tensor):
        output = output["logits"] if isinstance(output, dict) else output[0]
    return output


def assert_decides(found, chosen, features, labels=DATA.tensors[1]):
    """Accuracy and NC4 are those of the rows chosen."""
    means = reference.class_means(features.double().numpy(), labels.numpy())
    nearest = ((features.double()[:, None] - torch.as_tensor(means)) ** 2).sum(2).argmin(1)
    assert float(found.accuracy) == pytest.approx(float((chosen == labels).double().mean()))
    assert float(found.mismatch) == pytest.approx(float((chosen != nearest).double().mean()))


@pytest.mark.parametrize("batch_size", [1, 7, 30])
@pytest.mark.parametrize("name", AFTER)
def test_what_the_network_outputs_decides(name, batch_size):
    model = made(linear, AFTER[name])
    found = classifier(model, batch_size=batch_size)
    features = model.body(DATA.tensors[0]).detach()
    assert_decides(found, outputs_of(model).argmax(1), features)
    W, _ = effective(model.head)
    torch.testing.assert_close(found.weight, W, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", AFTER)
def test_so_it_does_if_the_head_is_named_unless_its_own_output_is_among_several(name):
    model = made(linear, AFTER[name])
    found = classifier(model, "head")
    features = model.body(DATA.tensors[0]).detach()
    decides = model.head(features) if name == "a tuple" else outputs_of(model)
    assert_decides(found, decides.argmax(1), features)


def test_what_rounding_to_half_precision_makes_equal_is_decided_exactly():
    model = made(linear, AFTER["half precision"])
    with torch.no_grad():
        model.head.weight[1] = 1.0001 * model.head.weight[0]
        model.head.bias[:2] = 0
        model.head.bias[2] += 0.6  # one sample has three logits that are nearly equal
    found = classifier(model, batch_size=30)
    features = model.body(DATA.tensors[0]).detach()
    W, b = effective(model.head)
    chosen = (features.double() @ W.mT + b).argmax(1)
    assert not torch.equal(chosen, outputs_of(model).argmax(1))
    assert_decides(found, chosen, features)


@pytest.mark.parametrize(
    "head",
    [
        lambda: normed(nn.Sequential(linear(), nn.BatchNorm1d(K))),
        lambda: Cosine(D, K),
        lambda: OfColumns(D, K, cosine=True),
        lambda: FixedSimplex(D, K, cosine=True),
    ],
)
@pytest.mark.parametrize("name", ["head", None])
def test_so_does_that_of_heads_that_are_more_than_linear(head, name):
    model = made(head)
    found = classifier(model, name)
    features = model.body(DATA.tensors[0]).detach()
    assert_decides(found, outputs_of(model).argmax(1), features)
    if isinstance(model.head, Cosine):
        assert not found.is_affine
        assert torch.equal(found.weight, model.head.weight.double())
    if isinstance(model.head, OfColumns):
        assert not found.is_affine
        assert torch.equal(found.weight, model.head.weight.T.double())
    if isinstance(model.head, FixedSimplex):
        assert not found.is_affine
        assert torch.equal(found.weight, model.head.simplex.T.double())


@pytest.mark.parametrize("cosine", [False, True])
def test_nothing_is_said_of_rows_if_a_head_has_a_column_per_class(cosine):
    (answer,) = ask(made(lambda: OfColumns(D, K, cosine)), Request(classifier=True))
    assert not answer.notes


TWO = nets.vectors((30, 25), spread=3.0)
ONE_LOGIT = {
    "a logit": (lambda z: z, 0),
    "a logit without an axis": (lambda z: z[:, 0], 0),
    "a probability": (torch.sigmoid, 0.5),
    "a probability without an axis": (lambda z: z.sigmoid()[:, 0], 0.5),
    "another probability": (lambda z: (z / 2 + 0.5).sigmoid(), 0.5),
    "a temperature": (lambda z: z / 40, 0),
    "a shifted logit": (lambda z: z + 0.3, 0),
    "a logit between 0 and 1.5": (lambda z: z.clamp(0, 1.5), 0),
}


@pytest.mark.parametrize("batch_size", [1, 2, 55])
@pytest.mark.parametrize("name", ONE_LOGIT)
def test_one_logit_or_its_probability_decides_alike_in_any_batches(name, batch_size):
    after, threshold = ONE_LOGIT[name]
    model = made(lambda: nn.Linear(D, 1), after)
    found = classifier(model, data=TWO, batch_size=batch_size)
    with torch.no_grad():
        chosen = (model(TWO.tensors[0]).flatten() > threshold).long()
        features = model.body(TWO.tensors[0])
    assert 0 < float(chosen.double().mean()) < 1
    assert_decides(found, chosen, features, TWO.tensors[1])


@pytest.mark.parametrize("name", ["logits", "log_softmax", "softmax", "another decision"])
@pytest.mark.parametrize("head", ["head", None])
def test_two_columns_of_two_rows_decide_by_the_larger(name, head):
    model = made(lambda: nn.Linear(D, 2), AFTER[name])
    found = classifier(model, head, data=TWO)
    features = model.body(TWO.tensors[0]).detach()
    with torch.no_grad():
        assert_decides(found, model(TWO.tensors[0]).argmax(1), features, TWO.tensors[1])


@pytest.mark.parametrize("after", [nn.LogSoftmax(1), nn.Softmax(1), nn.Tanh()])
def test_a_named_head_that_is_not_affine_is_refused_and_not_half_read(after):
    model = made(lambda: nn.Sequential(linear(), after))
    with pytest.raises(ValueError, match="'head' is a Sequential: it is not an affine map"):
        classifier(model, "head")
    assert_decides(  # what is found without a name is the linear layer in it
        classifier(model), outputs_of(model).argmax(1), model.body(DATA.tensors[0]).detach()
    )


@settings(max_examples=40, deadline=None)
@given(
    d=st.integers(1, 6),
    rows=st.integers(1, 5),
    seed=st.integers(0, 999),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_any_affine_map_is_read_from_its_outputs(d, rows, seed, scale):
    torch.manual_seed(seed)
    first, second = nn.Linear(d, 4), nn.Linear(4, rows)
    with torch.no_grad():
        second.weight.mul_(scale)
    module = nn.Sequential(first, nn.Dropout(), second).eval()
    h = torch.randn(3, d)
    head = read_head("head", module, h, module(h).detach())
    W, b = second.weight.double() @ first.weight.double(), second.bias.double()
    b = b + second.weight.double() @ first.bias.double()
    W, b = W.detach(), b.detach()
    size = float(W.abs().max() + b.abs().max())
    torch.testing.assert_close(head.weight, W, rtol=1e-9, atol=1e-12 * size)
    torch.testing.assert_close(head.bias, b, rtol=1e-9, atol=1e-12 * size)


def test_dynamically_quantised_weights_are_read():
    model = torch.ao.quantization.quantize_dynamic(
        made(linear), {nn.Linear}, dtype=torch.qint8
    ).eval()
    for name in (None, "head"):
        found = classifier(model, name, batch_size=30)
        W, b = model.head.weight().dequantize().double(), model.head.bias().detach().double()
        torch.testing.assert_close(found.weight, W, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.bias, b, rtol=0, atol=1e-6)
        assert found.is_affine


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU()), nn.Conv2d(5, 3, 1)

    def forward(self, x):
        return self.head(self.body(x)).mean((2, 3))


@pytest.mark.parametrize(("pool", "means"), [("flatten", True), (lambda h: h[:, :3, 0, 0], False)])
def test_features_of_another_width_than_the_rows_of_the_head_are_refused(pool, means):
    request = Request(classifier=True, needs_head=True, pool=pool)
    (error,) = ask(Pooled(), request, data=nets.images((12, 9, 9)))
    with pytest.raises(ValueError, match=r"'head' has weights for 5 features, .* Give a pool="):
        raise error
    assert ("masked_mean" in str(error)) == means


def test_a_convolution_before_global_pooling_is_a_head():
    model, data = Pooled(), nets.images((12, 9, 9))
    found = classifier(model, data=data)
    assert torch.equal(found.weight, model.head.weight.double().flatten(1))
    with torch.no_grad():
        features, chosen = model.body(data.tensors[0]).mean((2, 3)), model(data.tensors[0])
    assert_decides(found, chosen.argmax(1), features, data.tensors[1])


def test_a_square_matrix_of_a_head_that_is_not_affine_is_not_read_as_rows():
    class Square(Network):
        def __init__(self):
            super().__init__(FixedSimplex(K, K, cosine=True))
            self.body = nn.Sequential(nn.Linear(6, K), nn.Tanh())

    with pytest.raises(ValueError, match="'head' is a FixedSimplex: it is not an affine map"):
        classifier(Square())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return x + self.linear(x).relu()


def of_convolutions():
    return nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 7, 3), nn.ReLU(), nn.Flatten())


@pytest.mark.parametrize(
    "encoder", [lambda: nn.Sequential(Residual(), Residual()), of_convolutions]
)
def test_the_last_layer_of_an_encoder_is_no_head_of_more_classes(encoder):
    answers = ask(encoder(), Request(classifier=True), Request(layers="blocks"))
    alone = ask(encoder(), Request(layers="blocks"))
    assert "Found no head" in answers[0].notes["no head"]
    assert answers[0].classifier.weight is None
    # and what one callback finds is not for another to lose
    assert list(answers[1].layers) == list(alone[0].layers)


def test_no_request_changes_the_layers_that_another_finds():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU())
    orders = [Request(classifier=True), Request(layers="blocks")], [Request(layers="blocks")]
    together, alone = (ask(network, *requests)[-1] for requests in orders)
    assert list(together.layers) == list(alone.layers) == ["input", "1", "3"]


class OfTheLoss(nn.Module):
    """As with ArcFace: classes have weights, which the loss uses, and forward does not."""

    def __init__(self):
        super().__init__()
        self.weight, self.body = nn.Parameter(torch.randn(K, 8)), nn.Linear(6, 8)

    def forward(self, x):
        return self.body(x).tanh()


class Loss(nn.Module):
    """As in libraries of such losses: features have rows, and classes have columns."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.randn(8, K))


class WithLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.loss, self.body = Loss(), nn.Linear(6, 8)

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("kind", [OfTheLoss, WithLoss])
def test_what_the_loss_alone_classifies_is_no_logits(kind):
    model = kind()
    (answer,) = ask(model, Request(classifier=True))
    assert "Found no head" in answer.notes["no head"]
    assert answer.classifier.weight is None
    (of_output,) = ask(model, Request(classifier=True, head=False))
    assert torch.equal(answer.classifier.features.means, of_output.classifier.features.means)


class HeadApart(nn.Module):
    """As in metric learning: the network returns features, and training_step calls the head."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, K)

    def forward(self, x):
        return self.body(x).tanh()


@pytest.mark.parametrize("named", [None, "head"])
def test_the_way_to_a_head_that_the_network_does_not_call_is_told_and_leads_there(named):
    model = HeadApart()
    (answer,) = ask(model, Request(classifier=True, head=named))
    told = str(answer) if named else answer.notes["no head"]
    assert "out of range" not in told  # since the last layer has more rows than there are classes
    way = "lambda module, inputs: module.head(module(inputs))"
    assert f"call it: Probe(..., forward={way})" in told
    probe = Probe(DATA, "own", forward=eval(way))
    values = measure(model, probe, measures=[NeuralCollapse(named)]).values
    rows = reference.equinorm(model.head.weight.detach().double().numpy())
    assert values["nc/own/nc2_equinorm_weights"] == pytest.approx(rows, rel=1e-9)


def test_maps_of_a_sample_and_of_others_do_not_add_up_to_a_head():
    class OfNeighbours(nn.Module):
        """As a layer of a graph network, it maps a sample and the mean of its neighbours."""

        def __init__(self):
            super().__init__()
            self.of_others, self.of_own = linear(), linear()

        def forward(self, h, neighbours):
            return self.of_others(neighbours @ h / len(h)) + self.of_own(h)

    class OfGraph(Network):
        def forward(self, x):
            return self.head(self.body(x), x.new_ones(len(x), len(x)))

    model = OfGraph(OfNeighbours())
    (answer,) = ask(model, Request(classifier=True))
    assert "does not depend on the head 'head.of_own' alone" in answer.notes["bypass"]
    weight = model.head.of_own.weight.detach()
    assert torch.equal(answer.classifier.weight.to(weight.dtype), weight)


class OneLogit(nn.Module):
    """Its head is called a predictor, and what it computes is added to a logit of the input."""

    def __init__(self, wide):
        super().__init__()
        self.body, self.predictor = nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(8, 1)
        self.wide = nn.Linear(6, 1) if wide else None

    def forward(self, x):
        shallow = 0 if self.wide is None else self.wide(x)
        return shallow + self.predictor(self.body(x))


@pytest.mark.parametrize("wide", [False, True])
def test_one_row_is_a_head_of_two_classes_whatever_it_is_called_or_added_to(wide):
    model, data = OneLogit(wide), TensorDataset(torch.randn(30, 6), torch.arange(30) % 2)
    (answer,) = ask(model, Request(classifier=True), data=data)
    assert list(answer.notes) == ["bypass"] * wide
    weight = model.predictor.weight.detach().double() / 2
    assert torch.allclose(answer.classifier.weight, torch.cat([-weight, weight]))


class ResidualProjection(nn.Module):
    """The second layer of a block is called a projection by GPT-2, CLIP and Llama."""

    def __init__(self, name):
        super().__init__()
        self.name, self.up = name, nn.Linear(6, 9)
        setattr(self, name, nn.Linear(9, 6))

    def forward(self, x):
        return x + getattr(self, self.name)(self.up(x).relu())


@pytest.mark.parametrize("name", ["c_proj", "down_proj", "proj"])
def test_features_of_an_encoder_are_its_output_and_not_what_its_last_block_projects(name):
    model = nn.Sequential(ResidualProjection(name), ResidualProjection(name))
    (answer,) = ask(model, Request(classifier=True))
    (of_output,) = ask(model, Request(classifier=True, head=False, layers=["1"]))
    assert answer.classifier.weight is None
    assert torch.equal(answer.classifier.features.means, of_output.layers["1"].means)


def test_features_before_a_projection_head_are_its_input_and_it_is_said():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    model.add_module("projector", nn.Linear(8, K + 4))
    (answer,) = ask(model, Request(classifier=True))
    (of_layer,) = ask(model, Request(classifier=True, head=False, layers=["1"]))
    assert torch.equal(answer.classifier.features.means, of_layer.layers["1"].means)
    assert "Features are the input of projector. What" in answer.notes["no head"]


class ProjectionHead(nn.Linear):
    """Says by its class alone that its outputs are no logits."""


@pytest.mark.parametrize(
    "heads",
    [
        {"projector": nn.Linear(8, 9), "predictor": nn.Linear(9, K + 4)},
        {"projection_head": nn.Linear(8, 9), "prototypes": nn.Linear(9, K + 4)},
        {"student_head": ProjectionHead(8, K + 4)},
    ],
)
def test_features_are_those_before_the_first_of_several_projection_heads(heads):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    for name, head in heads.items():
        model.add_module(name, head)
    (answer,) = ask(model, Request(classifier=True))
    (of_layer,) = ask(model, Request(classifier=True, head=False, layers=["1"]))
    assert answer.classifier.weight is None
    assert torch.equal(answer.classifier.features.means, of_layer.layers["1"].means)
    assert f"Features are the input of {next(iter(heads))}. What" in answer.notes["no head"]


class OnlineClassifier(nn.Module):
    """A linear classifier of maps, as a module of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, K)

    def forward(self, x):
        return self.linear(x.flatten(1))


class MarginLoss(nn.Module):
    """A loss that holds rows of classes, and takes labels."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.randn(8, K))

    def forward(self, embeddings, labels=None):
        raise AssertionError("no labels were given")


def test_a_classifier_beside_the_network_is_named_as_it_can_be_called():
    model = nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (8, 1, 1)))
    model.classifier = OnlineClassifier()
    model.forward = lambda x: model[1](model[0](x))
    (answer,) = ask(model, Request(classifier=True))
    assert "module.classifier(module(inputs))" in answer.notes["no head"]
    called = {"forward": lambda module, inputs: module.classifier(module(inputs))}
    (found,) = ask(model, Request(classifier=True), **called)
    assert torch.equal(found.classifier.weight, model.classifier.linear.weight.double())


def test_a_loss_that_takes_labels_is_not_named_as_a_head():
    model = nn.Sequential(nn.Linear(6, 8))
    model.loss = MarginLoss()
    model.forward = lambda x: model[0](x)
    (answer,) = ask(model, Request(classifier=True))
    assert "'loss'" not in answer.notes["no head"]


class OfMembers(nn.Module):
    """The last layer of an ensemble: each member maps features of its own, and they are stacked."""

    def __init__(self, members):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, K, D // members))
        self.bias, self.out_features = nn.Parameter(torch.randn(members, 1, K)), K

    def forward(self, x):
        of_members = x.unflatten(1, (len(self.weight), -1)).movedim(1, 0)
        return (of_members @ self.weight.mT + self.bias).flatten(0, 1)


# what a network makes of the logits of a layer that several members, or centres of a class, share
REGROUPED = {
    "members by turns": lambda z: z.reshape(-1, K),
    "stacked members": lambda z: z.unflatten(1, (2, K)).movedim(1, 0).flatten(0, 1),
    "their mean": lambda z: z.unflatten(1, (2, K)).mean(1),
    "the nearest of two centres": lambda z: z.unflatten(1, (K, 2)).amax(2),
}


@pytest.mark.parametrize("case", [2, 5, *REGROUPED])
def test_rows_of_several_members_or_centres_are_not_taken_for_those_of_classes(case):
    def ensemble():
        return OfMembers(case) if isinstance(case, int) else nn.Linear(D, 2 * K)

    model = made(ensemble, REGROUPED.get(case))
    (answer, minority) = ask(
        model, Request(classifier=True), Request(classifier=True, needs_head=True)
    )
    (plain,) = ask(made(linear), Request(classifier=True))
    assert answer.classifier.weight is answer.classifier.mismatch is None
    assert torch.equal(answer.classifier.features.means, plain.classifier.features.means)
    assert list(answer.notes) == ["rows"]
    assert str(minority) in answer.notes["rows"] or 'head="head"' in str(minority)


def test_rows_that_are_left_out_are_no_other_members():
    (answer,) = ask(made(lambda: nn.Linear(D, 2 * K), lambda z: z[:, :K]), Request(classifier=True))
    assert len(answer.classifier.weight) == K
    assert list(answer.notes) == ["classes"]


class Repeated(Network):
    """Runs each batch three times, as dropout of an ensemble of runs, which are stacked."""

    def forward(self, x):
        return super().forward(x.repeat(3, 1))


def test_of_a_batch_that_runs_several_times_one_run_can_be_measured():
    model = made(linear)
    model.__class__ = Repeated
    (refused,) = ask(model, Request(classifier=True, layers=["body.1"]))
    assert "output[:len(inputs)]" in str(refused)
    assert 'forward="member"' in str(refused)
    pool = {"pool": lambda output, inputs: output[: len(inputs)]}
    (answer,) = ask(model, Request(classifier=True, layers=["body.1"], **pool))
    (plain,) = ask(made(linear), Request(classifier=True, layers=["body.1"]))
    assert answer.classifier.mismatch == plain.classifier.mismatch
    for found, wanted in (
        (answer.classifier.features, plain.classifier.features),
        (answer.layers["body.1"], plain.layers["body.1"]),
    ):
        torch.testing.assert_close(found.means, wanted.means)
        torch.testing.assert_close(found.squares, wanted.squares)


def test_without_outputs_of_the_samples_a_head_that_is_not_affine_decides_nothing():
    model = made(lambda: Cosine(D, K))
    model.__class__ = Repeated
    request = Request(classifier=True, pool=lambda output, inputs: output[: len(inputs)])
    (refused,) = ask(model, request)
    assert "'head' does not compute W h + b" in str(refused)
    first = {"forward": lambda module, inputs: module(inputs)[: len(inputs)]}
    (answer,) = ask(model, request, **first)
    (plain,) = ask(made(lambda: Cosine(D, K)), Request(classifier=True))
    assert answer.classifier.mismatch == plain.classifier.mismatch


class TwoTasks(Network):
    """Returns the logits of one head, and those of another."""

    def __init__(self):
        super().__init__(linear())
        self.other = linear()

    def forward(self, x):
        h = self.body(x)
        return self.head(h), self.other(h)


def test_a_head_beside_others_is_told():
    class Ensemble(TwoTasks):
        def forward(self, x):
            h = self.body(x)
            return self.other(h) + self.head(h)

    (answer,) = ask(Ensemble(), Request(classifier=True))
    assert "does not depend on the head 'head' alone" in answer.notes["bypass"]
    (named,) = ask(Ensemble(), Request(classifier=True, head="other"))
    assert named.notes == {}


@pytest.mark.parametrize("named", [None, "head"])
def test_a_head_whose_runs_on_several_views_are_averaged_is_told(named):
    class Averaged(Network):
        def forward(self, x):
            return (super().forward(x) + super().forward(-x)) / 2

    class OfSecond(Network):
        def forward(self, x):
            super().forward(-x)
            return super().forward(x)

    request = Request(classifier=True, head=named)
    (answer,) = ask(Averaged(linear()), request)
    assert "depends on 2 runs of the head 'head'" in answer.notes["bypass"]
    (other,) = ask(OfSecond(linear()), request)
    assert other.notes == {}


class Exits(nn.Module):
    """Returns logits after each of three layers, the first first."""

    def __init__(self, packed):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        self.heads, self.packed = nn.ModuleList(nn.Linear(6, 3) for _ in range(3)), packed

    def forward(self, h):
        logits = []
        for layer, head in zip(self.layers, self.heads, strict=True):
            h = layer(h)
            logits.append(head(h))
        return self.packed(logits)


RETURNED = {
    "[2]": list,
    '["c"]': lambda logits: dict(zip("abc", logits, strict=True)),
    ".c": lambda logits: dataclasses.make_dataclass("Logits", "abc")(*logits),
    "the last first": lambda logits: logits[::-1],
    "named logits": lambda logits: {"exit": logits[0], "logits": logits[2]},
    "another shape": lambda logits: [logits[2], logits[0][:, :2]],
}


@pytest.mark.parametrize("way", RETURNED)
def test_outputs_of_more_layers_than_the_first_are_told(way):
    model = Exits(RETURNED[way])
    of_all = ask(model, Request(classifier=True), Request(layers="blocks"))
    if way[0] not in "[.":
        assert [answer.notes for answer in of_all] == [{}, {}]
        return
    for answer in of_all:
        assert "3 outputs of shape" in answer.notes["outputs"]
        assert f"forward=lambda module, inputs: module(inputs){way})" in answer.notes["outputs"]
    assert list(of_all[1].layers) == ["input", "layers.0.1"]
    (named,) = ask(model, Request(classifier=True, head="heads.2"))
    assert named.notes == {}


def test_outputs_of_as_many_layers_are_told_where_the_classifier_is_measured():
    of_classifier, of_layers = ask(TwoTasks(), Request(classifier=True), Request(layers="blocks"))
    assert "module(inputs)[1])" in of_classifier.notes["outputs"]
    assert of_layers.notes == {}


def test_callbacks_may_name_heads_of_their_own_on_one_probe():
    model = TwoTasks().eval()
    requests = [
        *(Request(classifier=True, head=name) for name in ("head", "other", False)),
        Request(classifier=True, head="body.0"),
    ]
    first, second, without, hidden = ask(model, *requests)
    features = model.body(DATA.tensors[0]).detach()
    for answer, head in ((first, model.head), (second, model.other)):
        assert torch.equal(answer.classifier.weight, head.weight.double())
        assert_decides(answer.classifier, head(features).argmax(1), features)
    assert without.classifier.weight is None
    assert without.classifier.accuracy is None
    assert hidden.classifier.weight.shape == (3, 6)  # the rows of classes 0, 1, 2 of ten
    alone = [classifier(model, name) for name in ("head", "other")]
    for answer, expected in zip((first, second), alone, strict=True):
        assert torch.equal(answer.classifier.mismatch, expected.mismatch)
        assert torch.equal(answer.classifier.class_accuracy, expected.class_accuracy)


def test_a_network_without_a_head_has_none():
    (answer,) = ask(nn.Sequential(nn.Linear(6, 2), nn.Tanh()), Request(classifier=True))
    assert answer.classifier.weight is None
    assert answer.classifier.features.means.shape == (K, 2)
    assert "Features are what the network returns, of shape (7, 2). What" in answer.notes["no head"]


class RawHead(nn.Module):
    """Its matrix is a parameter of the network as a whole, and so of no module that can be read."""

    def __init__(self):
        super().__init__()
        self.body, self.W = nn.Linear(6, 8), nn.Parameter(torch.randn(8, K))

    def forward(self, x):
        return self.body(x).tanh() @ self.W


def test_logits_that_are_taken_for_features_are_told_with_the_way_out():
    (answer,) = ask(RawHead(), Request(classifier=True))
    assert answer.classifier.features.means.shape == (K, K)
    told = 'if these are logits, name the part before: Probe(forward="backbone")'
    assert f"of shape (7, {K}); {told}" in answer.notes["no head"]


@pytest.mark.parametrize("cache_mb", [0, 512])
@pytest.mark.parametrize("name", [*FOUND, *NAMED])
def test_reading_the_head_leaves_no_trace(name, cache_mb):
    model = made((FOUND | NAMED)[name]).train()
    runs = {part: [0, 0] for part, _ in model.named_modules() if "parametrizations" not in part}

    def count(part, before):
        def hook(*_):
            runs[part][before] += 1

        return hook

    for part, module in model.named_modules():
        if part in runs:
            module.register_forward_hook(count(part, 0))
            module.register_forward_pre_hook(count(part, 1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]
    weights = [getattr(m, "weight", None) for m in model.modules()]
    classifier(model, "head", cache_mb=cache_mb)
    assert len({tuple(each) for each in runs.values()}) == 1, runs
    assert nets.same(model.state_dict(), before)
    assert hooks == [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]
    assert all(module.training for module in model.modules())
    for module, weight in zip(model.modules(), weights, strict=True):
        if isinstance(weight, torch.Tensor):
            assert module.weight.dtype == weight.dtype
            assert module.weight.requires_grad == weight.requires_grad


def test_a_network_as_wide_as_there_are_classes_is_no_head():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4))

        def forward(self, x):
            return self.net(x)

    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(40, 6)
    values = measure(model, TensorDataset(x, torch.arange(40) % 4), layers=None).values
    with torch.no_grad():
        h = model.net[:3](x).double().numpy()
    head = model.net[3]
    W, b = (p.detach().double().numpy() for p in (head.weight, head.bias))
    expected = reference.collapse_values(h, (torch.arange(40) % 4).numpy(), W, b)
    assert values["nc/data/nc3"] == pytest.approx(float(expected["nc3"]), rel=1e-6)
    assert values["nc/data/nc1"] == pytest.approx(float(expected["nc1"]), rel=1e-6)


class TwoHeads(nn.Module):
    """A network with an auxiliary head at half depth that runs after the main one."""

    def __init__(self, answer):
        super().__init__()
        torch.manual_seed(3)
        self.lower = nn.Sequential(nn.Linear(6, D), nn.ReLU())
        self.upper = nn.Sequential(nn.Linear(D, D), nn.ReLU())
        self.main, self.auxiliary = nn.Linear(D, K), nn.Linear(D, K)
        self.branch = nn.ReLU()
        self.answer = answer

    def forward(self, x):
        h = self.lower(x)
        return self.answer(self.main(self.upper(h)), self.auxiliary(self.branch(h)))


class WithFeatures(nn.Module):
    """Returns features, logits and those of a domain, as networks for domain adaptation do."""

    def __init__(self, answer, rows=K):
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Linear(6, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU())
        self.classes, self.domain = nn.Linear(D, rows), nn.Linear(D, 2)
        self.answer = answer

    def forward(self, x):
        h = self.body(x)
        return self.answer(h, self.classes(h), self.domain(h))


ADJUSTED = torch.tensor([0.5, -0.5, 0.1])
BEHIND_FEATURES = {
    "a tuple": lambda h, z, d: (h, z + ADJUSTED, d),
    "a pair": lambda h, z, d: (h, z + ADJUSTED),
    "a dict": lambda h, z, d: {"features": h, "output": z + ADJUSTED, "domain": d},
    "logits alone": lambda h, z, d: z + ADJUSTED,
}


@pytest.mark.parametrize("way", BEHIND_FEATURES)
def test_logits_that_are_returned_behind_features_are_the_output(way):
    net = WithFeatures(BEHIND_FEATURES[way]).eval()
    alone = WithFeatures(BEHIND_FEATURES["logits alone"]).eval()
    measures = NeuralCollapse(), EquiSeparation(), LocalElasticity(relative_similarity=True)
    found, expected = (
        {
            key: value
            for key, value in measure(each, DATA, measures=[*measures]).values.items()
            if not key.endswith("seconds")
        }
        for each in (net, alone)
    )
    assert found == pytest.approx(expected, nan_ok=True)
    decided = alone(DATA.tensors[0]).argmax(1)
    assert found["nc/data/accuracy"] == (decided == DATA.tensors[1]).double().mean()


def test_logits_behind_features_are_the_output_if_most_classes_have_no_samples():
    values, both = [], [NeuralCollapse(), LocalElasticity()]
    for answer in (lambda h, z, d: (h, z)), (lambda h, z, d: z):
        net = WithFeatures(answer, rows=12)
        net.domain = nn.Identity()
        with pytest.warns(RuntimeWarning, match="12 rows"):
            found = measure(net, DATA, measures=both).values
        values.append({key: value for key, value in found.items() if "seconds" not in key})
    assert values[0] == pytest.approx(values[1], rel=1e-9, nan_ok=True)


class Stacked(nn.Module):
    """An ensemble that returns the logits of its members one below the other, or side by side."""

    def __init__(self, together):
        super().__init__()
        torch.manual_seed(3)
        self.members, self.together = nn.ModuleList(nn.Linear(6, K) for _ in range(2)), together

    def forward(self, x):
        return self.together([member(x) for member in self.members])


@pytest.mark.parametrize(
    ("together", "shape", "of_kernel"),
    [
        (torch.cat, (14, K), r"2 rows of outputs for one sample and 4 .*forward="),
        (lambda z: torch.stack(z, 1), (7, 2, K), r"returns \(1, 2, 3\).*Set outputs="),
    ],
)
def test_of_members_that_are_stacked_one_decides_for_itself_which_is_said(
    together, shape, of_kernel
):
    net = Stacked(together)
    (answer,) = ask(net, Request(classifier=True))
    said = f"decisions its own, since the network returns {shape} and the head (7, {K})"
    assert said in answer.notes["bypass"]
    decided = net.members[1](DATA.tensors[0]).argmax(1)
    assert_decides(answer.classifier, decided, DATA.tensors[0])
    with pytest.raises(ValueError, match=of_kernel):
        measure(net, DATA, measures=[LocalElasticity()])


def test_of_two_classes_the_head_is_not_that_of_two_domains():
    net = WithFeatures(lambda h, z, d: (h, z, d), rows=2).eval()
    found = classifier(net, data=TWO)
    assert torch.equal(found.weight, net.classes.weight.double())
    (answer,) = ask(net, Request(classifier=True), data=TWO)
    assert "returns 2 outputs of shape (7, 2)" in answer.notes["outputs"]
    assert answer.notes["outputs"].endswith("lambda module, inputs: module(inputs)[2]).")


@pytest.mark.parametrize(
    "answer",
    [lambda *both: both, lambda a, b: {"out": a, "aux": b}, lambda a, b: {"aux": b, "logits": a}],
    ids=["tuple", "mapping", "logits"],
)
def test_of_two_heads_with_as_many_rows_that_of_the_main_output_is_measured(answer):
    net = TwoHeads(answer).eval()
    collapse, law = NeuralCollapse, EquiSeparation
    found = measure(net, DATA, measures=[collapse(), law()])
    named = measure(net, DATA, measures=[collapse(head="main"), law()])
    assert found.values == pytest.approx(named.values, nan_ok=True)
    layers = [key for key in found.values if key.startswith("separation_layers/")]
    assert [key.rpartition("/")[2] for key in layers] == ["input", "lower.1", "upper.1"]
    of_other = measure(net, DATA, measures=[collapse(head="auxiliary")])
    y = DATA.tensors[1].numpy()
    h = net.lower(DATA.tensors[0]).detach()
    for values, features in ((found.values, net.upper(h)), (of_other.values, h)):
        expected = reference.variability_collapse(features.detach().double().numpy(), y)
        assert values["nc/data/nc1"] == pytest.approx(expected, rel=1e-6)  # of float32 features


def test_a_network_that_is_its_head_is_measured():
    """Such as a linear probe of features, or logistic regression."""
    x, y, network = torch.randn(30, 6), torch.arange(30) % 3, nn.Linear(6, 3)
    expected = measure(nn.Sequential(network), TensorDataset(x, y), measures=[NeuralCollapse()])
    found = measure(network, TensorDataset(x, y), measures=[NeuralCollapse()])
    assert found.values == expected.values
