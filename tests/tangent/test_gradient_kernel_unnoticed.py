"""A tangent kernel changes nothing, whatever surrounds it, and no silent mistake gets through."""

import copy

import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_nc.functional import gradient_kernel, relative_similarity
from tests import architectures, nets, reference, snapshots
from tests.gpu.networks import WithoutCudnn
from tests.tangent.cases import LAYERS, SEQUENCES, Net, mlp, parameter, randomised

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def assert_right(net, x, **options):
    gradients = reference.sample_gradients(net, x, names=options.get("parameters"))
    expected = reference.tangent_kernel(gradients)
    K = gradient_kernel(net, x, **options).detach()
    assert_allclose(K, expected, rtol=0, atol=1e-10 * expected.max())


@pytest.fixture
def x():
    return torch.randn(4, 4).double()


def fail(*_):
    raise AssertionError("a hook of the user ran")


def watched():
    """A network with pending gradients, modes of its own, and hooks that must not run."""
    net = randomised(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(True)))
    net.append(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)))
    net.append(Net(lambda s, x: torch.tanh(x * s.p + s.h(x)), p=parameter(6), h=nn.Linear(6, 6)))
    net = net.double().append(nn.Dropout()).append(nn.Linear(6, 3).double()).eval()
    net[0].train()
    net(torch.randn(5, 4).double()).sum().backward()
    net[3][0].weight.requires_grad_(False)
    net[3][0].weight.grad = None
    net[0].register_full_backward_hook(fail)
    net[3].register_full_backward_pre_hook(fail)
    net[0].weight.register_hook(fail)
    net[4].p.register_post_accumulate_grad_hook(fail)
    net[3][2].register_forward_hook(lambda _, args, out: out * 2)
    return net


@pytest.mark.parametrize("outputs", ["all", 2, lambda f: f.square().sum(1)])
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_nothing_is_touched(outputs, precision, x):
    net = watched()
    torch.set_float32_matmul_precision(precision)
    try:
        before, inputs = snapshots.snapshot(net), x.clone()
        gradient_kernel(net, x, outputs)
        relative_similarity(net, x, torch.tensor([0, 1, 2, 0]))
        relative_similarity(net, x, torch.tensor([0, 1, 2, 0]), rate=0.1)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
    assert snapshots.changes(before, snapshots.snapshot(net)) == []
    assert torch.equal(x, inputs)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_nothing_is_touched_by_what_fails_in_the_middle(call, x):
    net, calls = watched(), []

    def burst(*_):
        calls.append(1)
        if len(calls) == call:
            raise KeyError("of the user")

    net[4].register_forward_hook(burst)
    torch.set_float32_matmul_precision("high")
    try:
        before = snapshots.snapshot(net)
        if call < 4:
            with pytest.raises(KeyError, match="of the user"):
                gradient_kernel(net, x)
        else:  # within the batched recomputation: then sample by sample
            with pytest.warns(RuntimeWarning, match="of the user"):
                gradient_kernel(net, x)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert snapshots.changes(before, snapshots.snapshot(net)) == []


@pytest.mark.parametrize("case", ["conv2d", "attention", "bare parameters", "tied linears"])
def test_networks_of_many_kinds_are_not_touched(case):
    net, x = LAYERS[case]()
    before = snapshots.snapshot(net)
    gradient_kernel(net, x)
    assert snapshots.changes(before, snapshots.snapshot(net)) == []
    copy.deepcopy(net)


def test_an_lstm_can_be_copied_and_trained_afterwards():
    net = SEQUENCES["lstm"]().double()
    x = torch.randn(4, 3, 4).double()
    with pytest.warns(RuntimeWarning, match="for each sample"):
        gradient_kernel(net, x)
    assert torch.equal(copy.deepcopy(net)(x), net(x))
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert all(w is p for w, p in zip(net.a._flat_weights, net.a.parameters(), strict=True))


@pytest.mark.parametrize(
    "surroundings",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.set_grad_enabled(False),
    ],
)
def test_surroundings_do_not_matter(surroundings, x):
    net, inputs = mlp().float(), x.float()
    expected = gradient_kernel(net, inputs)
    with surroundings():
        assert torch.equal(gradient_kernel(net, inputs), expected)


def precisions():
    """What torch is asked for; the last two, and in an old torch all, hold for a CPU."""
    if not hasattr(torch.backends, "fp32_precision"):
        of_products = torch.get_float32_matmul_precision()
        return [torch.backends.cudnn.allow_tf32, "", of_products, of_products]
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv
    return [torch.backends.fp32_precision, *(backend.fp32_precision for backend in backends)]


def needs_precision_by_backend():
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this torch has one precision of float32 products, not one for each backend")


def ask_all(precision):
    needs_precision_by_backend()
    torch.backends.fp32_precision = precision


def ask_conv(precision):
    needs_precision_by_backend()
    torch.backends.mkldnn.conv.fp32_precision = precision


@pytest.mark.parametrize(
    ("ask", "less", "more"),
    [
        (torch.set_float32_matmul_precision, "medium", "highest"),
        (torch.set_float32_matmul_precision, "high", "highest"),
        (ask_all, "bf16", "none"),
        (ask_all, "tf32", "none"),
        (ask_conv, "bf16", "none"),
        (ask_conv, "none", "none"),
    ],
)
def test_networks_run_in_full_precision_however_less_was_asked_for(ask, less, more, x):
    net, seen, expected = mlp().float(), [], gradient_kernel(mlp().float(), x.float())
    net.register_forward_hook(lambda *_: seen.append(precisions()[2:]))
    ask(more)  # asking for the default may write it down where it was inherited
    initial = precisions()
    ask(less)
    try:
        before = precisions()
        torch.manual_seed(0)
        gradient_kernel(net, x.float())
        assert precisions() == before
    finally:
        ask(more)
    assert all(precision in ("none", "ieee", "highest") for each in seen for precision in each)
    assert precisions() == initial
    assert expected.isfinite().all()


def test_after_a_kernel_what_is_asked_of_all_backends_holds(x):
    ask_all("tf32")
    try:
        gradient_kernel(mlp(), x)
        ask_all("bf16")
        assert precisions()[-1] == "bf16"
    finally:
        ask_all("none")


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_a_network_can_read_the_settings_of_precision_which_are_put_back(precision, x):
    def asked():
        cuda = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        return *precisions(), *cuda, torch.get_float32_matmul_precision()

    torch.set_float32_matmul_precision("highest")  # which may write down what was inherited
    initial, seen = asked(), []
    net = nn.Sequential(WithoutCudnn(4, 3))
    net.register_forward_hook(lambda *_: seen.append(asked()))
    torch.set_float32_matmul_precision(precision)
    try:
        before = asked()
        gradient_kernel(net, x.float())
        assert asked() == before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert {each[-3:] for each in seen} == {(False, False, "highest")}
    assert asked() == initial


@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_run_without_cudnn_which_has_no_gradients_of_them(make, x):
    enabled = []
    net = Net(lambda s, x: s.a(x[:, None])[0][:, 0], a=make(4, 3, batch_first=True))
    net.register_forward_hook(lambda *_: enabled.append(torch.backends.cudnn.enabled))
    with pytest.warns(RuntimeWarning, match="for each sample"):
        gradient_kernel(net, x.float())
    assert enabled
    assert not any(enabled)
    assert torch.backends.cudnn.enabled
    enabled.clear()
    plain = mlp().float()
    plain.register_forward_hook(lambda *_: enabled.append(torch.backends.cudnn.enabled))
    gradient_kernel(plain, x.float())
    assert all(enabled)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_of_half_precision_are_taken_in_single(dtype, x):
    x, net = x.to(dtype), mlp().to(dtype)
    net[0].weight.data *= 1e-3  # products of gradients would underflow
    before = snapshots.snapshot(net)
    K = gradient_kernel(net, x)
    assert snapshots.changes(before, snapshots.snapshot(net)) == []
    assert torch.get_default_dtype() == torch.float32
    double = copy.deepcopy(net).double()
    expected = reference.tangent_kernel(reference.sample_gradients(double, x.double()))
    assert_allclose(K, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("m", [2, 4, 50])
@pytest.mark.parametrize("factor", [0.3, 0.01])
def test_a_weight_that_is_used_elsewhere_is_noticed_where_samples_are_alike(dtype, m, factor, x):
    net = Net(lambda s, x: s.h(x) + factor * F.linear(x, s.h.weight), h=nn.Linear(4, 3)).to(dtype)
    alike = (x[:1] + 1e-3 * torch.randn(m, 4)).to(dtype)
    K = gradient_kernel(net, alike)
    gradients = reference.sample_gradients(copy.deepcopy(net).double(), alike.double())
    assert_allclose(K, reference.tangent_kernel(gradients), rtol=1e-5)


@pytest.mark.parametrize("rate", [None, 0.1])
def test_parameters_used_by_another_reference_are_refused_by_name(rate, x):
    net = Net(lambda s, x: s.h(torch.tanh(F.linear(x, s.kept[0]))), h=nn.Linear(5, 3))
    net.first = nn.Linear(4, 5)
    net = net.double()
    net.kept = [net.first.weight]  # which no copy replaces
    with pytest.raises(ValueError, match=r"'first\.weight' through a reference other than the"):
        relative_similarity(net, x, torch.tensor([0, 1, 2, 0]), rate=rate)
    assert_right(net, x, parameters=["h.weight", "h.bias"])


def test_a_shared_embedding_that_rescales_its_weight_is_not_written_to():
    embedding, tied = nn.Embedding(7, 3, max_norm=0.5), nn.Linear(3, 7, bias=False)
    tied.weight = embedding.weight
    net = Net(lambda s, x: s.tied(s.embedding(x).sum(1)), tied=tied, embedding=embedding)
    before = snapshots.snapshot(net)
    with pytest.warns(RuntimeWarning, match="embedding_renorm"):  # which has no batching rule
        gradient_kernel(net, torch.tensor([[0, 1], [2, 3], [1, 1]]))
    assert snapshots.changes(before, snapshots.snapshot(net)) == []


def test_a_layer_whose_own_norm_is_bounded_is_no_embedding(x):
    """Such as a convolution with a constraint, whose weight is computed from its parameter."""
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    layer.max_norm = 0.5
    assert_right(nn.Sequential(layer).double(), x)


@pytest.mark.parametrize("wrap", ["around", "in place", "a part"])
def test_compiled_networks_are_measured(wrap, x):
    net = mlp()
    expected = gradient_kernel(net, x)
    if wrap == "around":
        net = torch.compile(net, backend="eager")
    elif wrap == "in place":
        net.compile(backend="eager")
    else:
        net[2] = torch.compile(net[2], backend="eager")
    net(x)
    assert torch.equal(gradient_kernel(net, x), expected)


def test_hooks_that_change_outputs_and_inputs_are_part_of_the_network():
    for case in ("linear", "layer norm", "bare parameters", "attention", "another forward"):
        net, x = LAYERS[case]()
        expected = gradient_kernel(net, x).detach()
        part = next(m for m in net[0][2].modules() if any(True for _ in m.parameters(False)))
        part.register_forward_hook(
            lambda _, args, out: (out[0] * 2, *out[1:]) if isinstance(out, tuple) else out * 2
        )
        part.register_forward_pre_hook(lambda _, args: (args[0] + 1, *args[1:]))
        assert not torch.allclose(gradient_kernel(net, x).detach(), expected)
        assert_right(net, x)


def test_inputs_that_want_gradients_get_none(x):
    leaf = x.clone().requires_grad_()
    assert torch.equal(gradient_kernel(net := mlp(), leaf).detach(), gradient_kernel(net, x))
    assert leaf.grad is None


def test_a_part_of_several_names_keeps_its_parameters_and_buffers(x):
    part = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh()).eval()
    net = nn.ModuleDict({"blocks": nn.ModuleList([part] * 3)}).double()
    before = [*net.parameters(), *net.buffers()]
    gradient_kernel(nn.Sequential(*net["blocks"]), x)
    after = [*net.parameters(), *net.buffers()]
    assert len(before) == len(after)
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_a_reentrant_checkpoint_is_the_part_that_it_wraps(x):
    net = Net(lambda s, x: checkpoint(s.a, s.b(x), use_reentrant=True), a=mlp(), b=mlp(4))
    expected = gradient_kernel(nn.Sequential(net.b, net.a), x)
    torch.testing.assert_close(gradient_kernel(net, x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", ["another part", "the network"])
def test_a_kernel_has_no_graph(case, x):
    if case == "another part":
        net = Net(lambda s, x: s.h(x) * s.p, h=nn.Linear(4, 3), p=parameter(3)).double()
    else:
        net = Net(lambda s, x: F.linear(s.h(x).tanh(), s.h.weight), h=nn.Linear(4, 4)).double()
        net.scale = parameter(1)
    net = nn.Sequential(nn.Linear(4, 4).double(), nn.Tanh(), net)
    assert not gradient_kernel(net, x).requires_grad


@pytest.mark.parametrize("case", ["weights used by another", "rows step by step"])
def test_a_mistake_that_only_the_second_output_sees_is_found(case, x):
    def shared(s, x):
        return torch.cat([s.a(x), F.linear(s.b(x).tanh(), s.b.weight).sum(1, keepdim=True)], 1)

    def steps(s, x):
        h = s.b(x.view(-1, 1, 4).expand(-1, 2, 4).cumsum(1).transpose(0, 1).flatten(0, 1))
        return torch.cat([s.a(x), h.tanh().view(2, len(x), 4).sum((0, 2))[:, None]], 1)

    call = shared if case == "weights used by another" else steps
    assert_right(Net(call, a=nn.Linear(4, 1), b=nn.Linear(4, 4)).double(), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_that_are_zero_but_for_rounding_are_no_mistake(dtype):
    # the softmax of attention does not depend on the bias of keys, which is what BitFit trains, too
    bert = architectures.published("Bert").eval().to(dtype)
    K = gradient_kernel(bert, architectures.tokens(), lambda f: f.logits[:, 0], ["**.bias"])
    names = [name for name, _ in bert.named_parameters() if name.endswith(".bias")]
    gradients = reference.sample_gradients(
        bert.double(), architectures.tokens(), lambda f: f.logits[:, 0], names
    )
    assert_allclose(K.detach(), reference.tangent_kernel(gradients), rtol=1e-3)


@pytest.mark.parametrize(("inner", "outer"), [("bfloat16", "float32"), ("float32", "float64")])
def test_outputs_may_be_of_a_higher_precision_than_the_network(inner, outer):
    inner, outer = getattr(torch, inner), getattr(torch, outer)
    for _ in range(5):
        hidden = nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()
        body, x = nn.Sequential(*hidden, nn.Linear(64, 3)).to(inner), torch.randn(6, 16).to(inner)
        K = gradient_kernel(Net(lambda s, x: s.body(x).to(outer), body=body), x)
        exact = gradient_kernel(body.double(), x.double())
        assert (K - exact).abs().max() < 10 * torch.finfo(inner).eps * exact.max()


def test_inputs_and_frozen_parts_may_be_of_inference_mode(x):
    def call(s, x):
        with torch.inference_mode():
            h = s.base(x)
        return s.h(h.clone())

    net = Net(call, base=mlp(4).requires_grad_(False), h=nn.Linear(4, 3).double())
    assert_right(net, x)
    expected = gradient_kernel(net, x)
    with torch.inference_mode():
        assert torch.equal(gradient_kernel(net, x.clone()), expected)


def test_what_modules_keep_of_a_forward_pass_can_be_read_and_copied(x):
    def call(s, x):
        s.last = torch.tanh(x * s.p).detach()
        return x * s.p

    net = nn.Sequential(mlp(4), Net(call, p=parameter(4)).double())
    net(x)
    gradient_kernel(net, x)
    assert net[1].last.shape == (4, 4)
    copy.deepcopy(net)


def test_a_shared_parameter_goes_by_each_of_its_names(x):
    net = Net(lambda s, x: s.b(s.a(x).tanh()), a=nn.Linear(4, 4), b=nn.Linear(4, 4)).double()
    net.b.weight = net.a.weight
    first = gradient_kernel(net, x, parameters=["a.weight"])
    assert torch.equal(gradient_kernel(net, x, parameters=["b.weight"]), first)


@pytest.mark.parametrize("outputs", ["al", None, 2.0])
def test_an_unknown_kind_of_outputs_is_refused(outputs, x):
    with pytest.raises((ValueError, TypeError), match="outputs"):
        gradient_kernel(mlp(), x, outputs)
