"""Hooks that a forward pass adds are removed, and those of the user can be kept out of it."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from lightning_nc import Probe, measure
from lightning_nc.guards.hooks import belongs_to_network
from lightning_nc.guards.unobtrusive import unobtrusive
from tests import nets
from tests.guards.test_guards import inside as inside  # a fixture
from tests.snapshots import changes, snapshot

KINDS = [
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
    "register_state_dict_pre_hook",
    "register_load_state_dict_pre_hook",
    "register_load_state_dict_post_hook",
]


class Registering(nn.Linear):
    """Adds hooks of all kinds, in each forward pass, to itself, its weights and all modules."""

    def forward(self, x):
        for kind in KINDS:
            getattr(self, kind)(lambda *_: None)
        self.register_forward_hook(lambda *_, **__: None, with_kwargs=True, always_call=True)
        self._register_state_dict_hook(lambda *_: None)
        self.weight.register_hook(lambda gradient: 2 * gradient)
        self.bias.register_post_accumulate_grad_hook(print)
        self.handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
        return super().forward(x)


def test_hooks_of_all_kinds_are_removed(inside):
    net = nn.Sequential(Registering(2, 2))
    kept = net[0].register_forward_hook(lambda *_: None)
    net[0].bias.register_hook(lambda gradient: 3 * gradient)
    before, everywhere = snapshot(net), nn.modules.module._global_forward_hooks
    try:
        inside(lambda: net(torch.ones(1, 2)), net)
        assert changes(before, snapshot(net)) == []
    finally:
        everywhere.clear()
    assert list(net[0]._forward_hooks) == [kept.id]
    net[0].register_backward_hook(lambda *_: None)  # refused where there are full ones
    nn.functional.linear(torch.ones(1, 2), net[0].weight, net[0].bias).sum().backward()
    assert net[0].weight.grad.tolist() == [[1, 1], [1, 1]]
    assert net[0].bias.grad.tolist() == [3, 3]


def test_hooks_that_a_forward_pass_removes_are_there_again_in_their_order(inside):
    net, called = nn.Identity(), []
    handles = [net.register_forward_hook(lambda *_, n=n: called.append(n)) for n in range(3)]
    inside(handles[1].remove, net)
    net(torch.ones(1))
    assert called == [0, 1, 2]


def test_hooks_that_transformers_adds_in_the_first_pass_are_not_added_twice():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=9, intermediate_size=8, **sizes)
    net = transformers.BertModel(config)
    x = torch.arange(4)[None]
    with unobtrusive(net):
        net(x, output_hidden_states=True)
    assert len(net(x, output_hidden_states=True).hidden_states) == 3


class Recorder:
    def __init__(self):
        self.seen = []

    def __call__(self, module, args, output=None):
        self.seen.append(len(args))

    def method(self, *given):
        self(*given)


class RecordingModule(nn.Module):
    def forward(self, module, args, output):
        pass


class OwnPruning(prune.BasePruningMethod):
    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t, default_mask):
        return (t > 0) * default_mask


def observed(net):
    net.qconfig = torch.ao.quantization.default_qconfig
    return torch.ao.quantization.prepare(nn.Sequential(net.eval()))[0]


def hooks_of(module):
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


NETWORKS_OWN = {
    "weight norm": nn.utils.weight_norm,
    "spectral norm": nn.utils.spectral_norm,
    "pruning": partial(prune.random_unstructured, name="weight", amount=1),
    "own pruning": partial(OwnPruning.apply, name="weight"),
    "both": lambda net: prune.l1_unstructured(nn.utils.spectral_norm(net), "bias", 1),
    "quantisation": observed,
    "lazy": lambda _: nn.LazyLinear(2),
}


@pytest.mark.filterwarnings(
    "ignore:.*weight_norm:FutureWarning",
    "ignore:.*quantization:DeprecationWarning",  # of a newer torch than the lowest
)
@pytest.mark.parametrize("make", NETWORKS_OWN.values(), ids=NETWORKS_OWN)
def test_hooks_of_the_network_belong_to_it(make):
    net = nn.Linear(2, 2)
    made = make(net)
    hooks = hooks_of(made if isinstance(made, nn.Module) else net)
    assert hooks
    assert all(map(belongs_to_network, hooks))


USERS_OWN = [
    Recorder(),
    Recorder().method,
    partial(Recorder().method),
    lambda *_: None,
    torch.no_grad()(lambda *_: None),
    torch.compiler.disable(lambda *_: None),
    RecordingModule(),
    RecordingModule().forward,
    print,
    [].append,
    type("Derived", (nn.Linear,), {"method": lambda self, *_: None})(1, 1).method,
]


@pytest.mark.parametrize("hook", USERS_OWN, ids=range(len(USERS_OWN)))
def test_hooks_of_the_user_do_not_belong_to_it(hook):
    assert not belongs_to_network(hook)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        *(NETWORKS_OWN[name] for name in ("weight norm", "spectral norm", "pruning", "both")),
        parametrizations.weight_norm,
        parametrizations.orthogonal,
    ],
)
def test_without_hooks_of_the_user_a_network_computes_the_same(make):
    net = nn.Sequential(make(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 3)).eval()
    x, recorder = torch.randn(5, 6), Recorder()
    with torch.no_grad():
        expected = net(x)
        net[0].weight.neg_()  # stale: the next pass computes it from other parameters
    for module in net.modules():
        module.register_forward_pre_hook(recorder.method)
        module.register_forward_hook(recorder)
    everywhere = nn.modules.module.register_module_forward_hook(recorder)
    try:
        with unobtrusive(net, user_hooks=False):
            output = net(x)
        assert torch.equal(output, expected)
        assert recorder.seen == []
        net(x)
        assert len(recorder.seen) >= 3 * 4
    finally:
        everywhere.remove()


def collecting(seen):
    net = nets.mlp()
    net[4].register_forward_hook(lambda *_: seen.append("after"))
    net[6].register_forward_pre_hook(lambda *_: seen.append("before"))
    return net


@pytest.mark.parametrize("callback_class", nets.CALLBACKS)
@pytest.mark.filterwarnings(*nets.only_our_warnings)
def test_what_hooks_of_the_user_collect_is_what_they_collect_without_us(callback_class, tmp_path):
    def train(callbacks):
        seen = []
        return nets.train_and_trace(tmp_path, callbacks, net=partial(collecting, seen)), seen

    callback = callback_class(probe=Probe(user_hooks=False), figures=False)
    (expected, seen_without_us), (trace, seen) = train([]), train([callback])
    assert seen == seen_without_us
    assert len(seen) > 20
    assert nets.difference(trace, expected) is None
    assert len(callback.history) == 3


def test_hooks_of_the_user_run_in_a_pass_unless_they_are_kept_out():
    seen = []
    net = collecting(seen)
    measure(net, Probe(nets.vectors(), "data"))
    assert seen
    seen.clear()
    measure(net, Probe(nets.vectors(), "data", user_hooks=False))
    assert seen == []
