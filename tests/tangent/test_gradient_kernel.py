"""The tangent kernel by hand, its invariances, outputs and parameters, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn

from lightning_nc.functional import gradient_kernel, last_layer_kernel
from lightning_nc.tangent.checked_pass import CheckedPass
from tests import architectures, nets, reference
from tests.tangent.cases import Net, mlp, parameter, shift

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)
seeds = st.integers(0, 2**16)
batches = "all model.eval()"


def expected_of(net, x, outputs=None, names=None):
    return reference.tangent_kernel(reference.sample_gradients(net, x, outputs, names))


def assert_right(net, x, **options):
    expected = expected_of(net, x, **options)
    K = gradient_kernel(
        net, x, options.get("outputs") or "all", parameters=options.get("names")
    ).detach()
    assert_allclose(K, expected, rtol=0, atol=1e-10 * expected.max())


@pytest.fixture
def x():
    return torch.randn(5, 4).double()


def test_two_layers_by_hand():
    # f = v relu(w x): df/dw = v x and df/dv = w x where w x > 0
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        net[0].weight.fill_(2.0)
        net[2].weight.fill_(3.0)
    K = gradient_kernel(net, torch.tensor([[1.0], [5.0], [-1.0]]))
    assert_allclose(K, [[9 + 4, 45 + 20, 0], [45 + 20, 225 + 100, 0], [0, 0, 0]])


def test_an_embedding_by_hand_counts_common_tokens_but_padding():
    # f is the sum over tokens of w_t: gradients are counts (2, 1, 0), (0, 2, 1) and (0, 0, 3)
    net = Net(lambda s, x: s.e(x).sum(1), e=nn.Embedding(4, 1, padding_idx=0))
    tokens = torch.tensor([[1, 1, 2], [2, 3, 2], [3, 3, 3]])
    assert_allclose(gradient_kernel(net, tokens), [[5, 2, 0], [2, 5, 3], [0, 3, 9]])
    tokens[2, 1] = 0
    assert_allclose(gradient_kernel(net, tokens), [[5, 2, 0], [2, 5, 2], [0, 2, 4]])


@pytest.mark.parametrize("bias", [True, False])
def test_of_a_linear_network_the_last_layer_is_all(bias, x):
    net = nn.Linear(4, 3, bias=bias).double()
    K = gradient_kernel(net, x)
    assert_allclose(K, 3 * (x @ x.T + bias), rtol=1e-12)
    assert_allclose(last_layer_kernel(x, 3, bias), K, rtol=1e-12)
    assert last_layer_kernel(x.half(), 3).dtype == torch.float64


@given(seed=seeds, m=st.integers(1, 7), C=st.integers(1, 4))
def test_kernels_are_symmetric_and_positive_and_follow_the_order_of_samples(seed, m, C):
    torch.manual_seed(seed)
    net, x, order = mlp(C), torch.randn(m, 4).double(), torch.randperm(m)
    K = gradient_kernel(net, x)
    assert K.shape == (m, m)
    assert_allclose(K, K.mT, rtol=1e-12)
    assert torch.linalg.eigvalsh(K).min() >= -1e-12 * K.max()
    assert_allclose(gradient_kernel(net, x[order]), K[order][:, order], rtol=1e-10)
    if m > 1:
        assert_allclose(gradient_kernel(net, x[1:]), K[1:, 1:], rtol=1e-10)


@given(seed=seeds, C=st.integers(2, 5), R=st.integers(1, 12))
def test_rotating_the_outputs_keeps_the_trace_kernel(seed, C, R):
    torch.manual_seed(seed)
    net, x = mlp(C), torch.randn(4, 4).double()
    K = gradient_kernel(net, x)
    rotation = torch.linalg.qr(torch.randn(C, C).double())[0]
    rotated = Net(lambda s, x: s.net(x) @ rotation, net=net)
    assert_allclose(gradient_kernel(rotated, x), K, rtol=1e-9)
    assert_allclose(gradient_kernel(net, x, outputs=C, seed=seed), K, rtol=1e-9)
    assert_allclose(gradient_kernel(net, x, outputs=3 * C, seed=seed), K, rtol=1e-9)
    some = gradient_kernel(net, x, outputs=R, seed=seed)
    assert torch.equal(some, gradient_kernel(net, x, outputs=R, seed=seed))
    if R % C:
        assert not torch.allclose(some, gradient_kernel(net, x, outputs=R, seed=seed + 1))
        assert not torch.allclose(some, K)


@pytest.mark.parametrize("R", [1, 2, 4])
def test_random_directions_are_unbiased(R, x):
    net = mlp(3)
    K = gradient_kernel(net, x)
    runs = torch.stack([gradient_kernel(net, x, outputs=R, seed=seed) for seed in range(100)])
    error = runs.std(0) / len(runs) ** 0.5
    assert ((runs.mean(0) - K).abs() < 4 * error).all()
    assert (error < 0.2 * K.diagonal().max()).all()


def test_a_function_of_the_output_gives_its_kernel(x):
    net = mlp(3)
    for outputs in (lambda f: f[:, 1], lambda f: f.softmax(1)[:, :1], lambda f: f.square().sum(1)):
        assert_right(net, x, outputs=outputs)
    each = [gradient_kernel(net, x, outputs=lambda f, c=c: f[:, c]) for c in range(3)]
    assert_allclose(sum(each), gradient_kernel(net, x), rtol=1e-12)


def test_inputs_may_be_tuples_and_dicts_with_parts_that_all_samples_share(x):
    net = Net(lambda s, x, y, scale: s.h(x * y * scale), h=nn.Linear(4, 2)).double()
    scale = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).double()
    expected = gradient_kernel(net.h, x * x.cos() * scale)
    for inputs in ((x, x.cos(), scale), {"x": x, "scale": scale, "y": x.cos()}):
        assert_allclose(gradient_kernel(net, inputs), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ("0.*", ["0.weight", "0.bias"]),
        (["*.bias"], ["0.bias", "2.bias"]),
        (["2.weight", "2.*"], ["2.weight", "2.bias"]),
        (("0.weight",), ["0.weight"]),
        (iter(["?.bias"]), ["0.bias", "2.bias"]),
        (["**"], ["0.weight", "0.bias", "2.weight", "2.bias"]),
        (["*.*"], ["0.weight", "0.bias", "2.weight", "2.bias"]),
    ],
)
def test_parameters_are_chosen_by_names_and_globs(parameters, names, x):
    net = mlp()
    expected = expected_of(net, x, names=names)
    assert_allclose(gradient_kernel(net, x, parameters=parameters), expected, rtol=1e-10)
    net.requires_grad_(False)
    assert_allclose(gradient_kernel(net, x, parameters=names), expected, rtol=1e-10)


def test_parts_add_up_and_frozen_ones_do_not_count(x):
    net = mlp()
    parts = [gradient_kernel(net, x, parameters=[name]) for name, _ in net.named_parameters()]
    assert_allclose(sum(parts), gradient_kernel(net, x), rtol=1e-12)
    net[0].requires_grad_(False)
    assert_allclose(gradient_kernel(net, x), parts[2] + parts[3], rtol=1e-12)
    frozen = Net(lambda s, x: s.h(s.base(x)), base=mlp(6), h=nn.Linear(6, 2)).double()
    frozen.base.forward = torch.no_grad()(frozen.base.forward)
    assert_right(frozen, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": ["hed.*"]}, r"No parameter matches 'hed\.\*'.* 2\.weight, 2\.bias"),
        ({"parameters": ["*"]}, r"'\*'\. A '\*' stops at a dot .*'\*\*' matches '0\.weight', "),
        ({"outputs": 0}, "1 or more, got 0"),
        ({"outputs": -3}, "1 or more, got -3"),
        ({"outputs": True}, "1 or more, got True"),
        ({"outputs": lambda f: f.sum()}, r"returns \(\), but .*one number per sample"),
        ({"outputs": lambda f: f[:, :, None]}, r"returns \(1, 3, 1\), but "),
        ({"outputs": lambda f: f.argmax(1)}, "one number per sample"),
        ({"outputs": lambda f: {"f": f}}, "returns dict, but "),
        ({"inputs": {"x": 3}}, "a tensor with a row per sample, got dict"),
        ({"inputs": torch.empty(0, 4)}, "a tensor with a row per sample"),
        ({"inputs": torch.tensor(1.0)}, "a tensor with a row per sample"),
    ],
)
def test_what_cannot_be_is_refused_by_value(options, message, x):
    with pytest.raises(ValueError, match=message):
        gradient_kernel(mlp(), **{"inputs": x} | options)


def test_a_network_that_is_frozen_wants_names(x):
    with pytest.raises(ValueError, match=r'No parameter .* is trained .*parameters=\["head'):
        gradient_kernel(mlp().requires_grad_(False), x)


def test_a_derivative_that_there_is_not_is_named_and_not_taken_for_randomness(x):
    net = Net(lambda s, x: s.head(s.body(x).abs().sqrt()), body=nn.Linear(4, 6, bias=False))
    net.head = nn.Linear(6, 2)
    x[1] = 0  # where the square root has none
    with pytest.raises(ValueError, match=r"with respect to body\.weight are not finite"):
        gradient_kernel(net.double(), x)


def in_training(layer):
    images = torch.randn(4, 2, 5, 5).double()
    net = nn.Sequential(nn.Conv2d(2, 4, 3), layer, nn.Flatten(), nn.Linear(36, 2))
    return net.double().train(), images


def centred(s, x):
    return s.a(x - x.mean(0))


TOGETHER = {
    "statistics of the batch": lambda: in_training(nn.BatchNorm2d(4)),
    "statistics in evaluation, too": lambda: in_training(
        nn.BatchNorm2d(4, track_running_stats=False)
    ),
    "dropout": lambda: in_training(nn.Dropout()),
    "centred": lambda: (Net(centred, a=mlp()), torch.randn(4, 4).double()),
    "sums of those before": lambda: (
        Net(lambda s, x: torch.tanh(s.a(x)).cumsum(0), a=mlp()),
        torch.randn(4, 4).double(),
    ),
    "time for samples": lambda: (
        Net(lambda s, x: s.a(x)[0][:, -1], a=nn.LSTM(4, 2)).double(),
        torch.randn(4, 3, 4).double(),
    ),
    "from call to call": lambda: (
        Net(lambda s, x: s.a(x) + torch.rand(len(x), 1), a=mlp()),
        torch.randn(4, 4).double(),
    ),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_samples_that_act_on_each_other_are_refused(case):
    with pytest.raises(ValueError, match=batches):
        gradient_kernel(*TOGETHER[case]())


def test_parts_that_are_proven_wrong_are_left_to_the_network(x, monkeypatch):
    net = Net(lambda s, x: F.linear(torch.tanh(s.a(x)), s.a.weight), a=nn.Linear(4, 4)).double()
    assert_right(net, x)
    monkeypatch.setattr(CheckedPass, "broken", lambda *_: [])
    with pytest.raises(AssertionError):
        assert_right(net, x)


def test_an_input_that_is_overwritten_later_is_noticed_whatever_the_direction(x):
    def call(s, x):
        h = s.l(x)
        late = s.a(h)  # of the second output only
        return torch.stack([h.mul_(3).sum(1), late.sum(1)], 1)

    assert_right(Net(call, l=nn.Linear(4, 4), a=shift()).double(), x)


def test_all_published_forms_of_input_are_taken():
    net = architectures.published("Bert").eval().double()
    words = architectures.tokens()
    K = gradient_kernel(net, words, outputs=lambda f: f.logits[:, 0])
    pair = gradient_kernel(net, tuple(words.values()), outputs=lambda f: f.logits[:, 0])
    assert_allclose(pair.detach(), K.detach(), rtol=1e-12)


def test_bare_parameters_alone_are_a_network(x):
    net = Net(lambda s, x: torch.tanh(x @ s.w + s.b), w=parameter(4, 2), b=parameter(2)).double()
    assert_right(net, x)
