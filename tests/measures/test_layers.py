"""Layers that contain each other, layers that accept no hooks, and layers of traced graphs."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import EquiSeparation, NeuralCollapse, find_blocks, measure
from lightning_nc.functional import gradient_kernel
from tests import nets, reference
from tests.architectures import Block, block_mlp

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.* is deprecated", "ignore:.*LeafSpec.* is deprecated"
)

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 4
DATA = TensorDataset(X, Y)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return block_mlp()


def told_by(layers, net):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        measure(net, DATA, layers=layers, head=False)
    return [str(w.message) for w in told if "contain" in str(w.message)]


@pytest.mark.parametrize(
    ("layers", "inside"),
    [
        (["input", "1", "1.relu", "2"], "('1.relu' is in '1'), so D"),
        (["1.*", "2", "3.**", "3"], "('3.linear' is in '3', '3.relu' is in '3'), so D"),
        ("**", "('1.linear' is in '1', '1.relu' is in '1', '2.linear' is in '2' and 3 more), so D"),
    ],
)
def test_layers_that_contain_others_are_told_in_one_sentence(net, layers, inside):
    (text,) = told_by(layers, net)
    assert text.startswith(f"measure(): some layers contain others {inside}")
    assert "Name layers that do not contain each other" in text


@pytest.mark.parametrize("layers", ["blocks", ["input", "1", "2", "3"], "*.relu", ["1.*", "2"]])
def test_layers_of_which_none_contains_another_are_not_told(net, layers):
    assert told_by(layers, net) == []


@pytest.mark.filterwarnings(*nets.only_our_warnings)
def test_a_callback_tells_of_layers_that_contain_others_once_and_measures(tmp_path):
    blocks = nn.Sequential(nn.Linear(6, 8), Block(), Block(), nn.Linear(8, 3))
    callback = EquiSeparation(layers="net.**", figures=False)
    with pytest.warns(RuntimeWarning, match=r"'net\.1\.linear' is in 'net\.1'") as told:
        nets.fit(tmp_path, [callback], net=blocks)
    assert len([w for w in told if "contain" in str(w.message)]) == 1
    assert len(callback.history) == 3


def scripted(net):
    return torch.jit.script(net)


def part(net):
    net[1] = torch.jit.script(net[1])
    return net


def traced_part(net):
    net[1] = torch.jit.trace(net[1], torch.randn(3, 8))
    return net


def frozen_part(net):
    net[1] = torch.jit.freeze(torch.jit.script(net[1].eval()))
    return net


WHOLE = r"The network is a ScriptModule, which accepts no hooks: measure the eager module"
PART = r"'1' is a ScriptModule, which accepts no hooks: name modules outside of it, or measure the"


@pytest.mark.parametrize("layers", ["1", "1.relu", "*", ["0", "**"], {"1.linear": nn.Flatten()}])
@pytest.mark.parametrize(
    ("make", "message"),
    [(scripted, WHOLE), (part, PART), (traced_part, PART), (frozen_part, PART)],
)
def test_a_layer_in_a_script_module_is_told_with_the_way_out(net, layers, make, message):
    with pytest.raises(ValueError, match=rf"Layer '.*' cannot be measured\. {message}"):
        measure(make(net), DATA, layers=layers, head=False)


def test_blocks_and_head_in_a_script_module_are_told_with_the_way_out(net):
    whole = scripted(block_mlp())
    with pytest.raises(ValueError, match=f"Found no blocks.*{WHOLE}"):
        find_blocks(whole, X)
    with pytest.raises(ValueError, match=f"Found no head.*{WHOLE}"):
        measure(whole, DATA, layers=None)
    net[4] = torch.jit.script(net[4])
    with pytest.raises(ValueError, match=r"The head '4' .* '4' is a ScriptModule"):
        measure(net, DATA, head="4")


@pytest.mark.filterwarnings(*nets.only_our_warnings)
def test_a_run_of_a_script_module_goes_on_and_is_told_why_it_is_not_measured(tmp_path):
    callback = EquiSeparation(epochs=[0])
    with pytest.warns(RuntimeWarning, match="skipped .*'net' is a ScriptModule"):
        nets.fit(tmp_path, [callback], net=torch.jit.script(nets.mlp()))
    assert callback.failures == 1


@pytest.mark.parametrize("make", [part, traced_part, frozen_part])
def test_what_is_outside_of_a_script_module_is_measured_as_without_it(net, make):
    layers = ["input", "0", "2", "3"]
    expected = measure(net, DATA, layers=layers).values
    assert measure(make(net), DATA, layers=layers).values == pytest.approx(expected, rel=1e-6)
    assert all(module.training for module in net.modules() if hasattr(module, "training"))


@pytest.mark.parametrize("make", [scripted, part, frozen_part])
def test_gradients_of_a_script_module_are_those_of_the_eager_one(net, make):
    net = net.double().eval()
    expected = gradient_kernel(net, X.double(), parameters=["4.*"])
    kernel = gradient_kernel(make(net), X.double(), parameters=["4.*"])
    assert torch.allclose(kernel, expected, rtol=1e-9)


class Blocks(torch.fx.Tracer):
    def is_leaf_module(self, module, name):
        return isinstance(module, Block) or super().is_leaf_module(module, name)


def exported(net):
    sizes = ({0: torch.export.Dim("samples")},)
    program = torch.export.export(net.eval(), (X[:4],), dynamic_shapes=sizes)
    try:
        return torch.export.unflatten(program)
    except RuntimeError as error:  # torch 2.6 cannot, for a network that is a Sequential
        if "is not a descendant of parent module" not in str(error):
            raise
        pytest.skip(str(error))


def graph_of_blocks(net):
    return torch.fx.GraphModule(net, Blocks().trace(net))


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (torch.fx.symbolic_trace, ["input", "1.relu", "2.relu", "3.relu"]),
        (graph_of_blocks, ["input", "1", "2", "3"]),
        (exported, ["input", "1", "2", "3"]),
    ],
)
def test_graphs_are_measured_like_the_network(net, make, layers):
    expected = measure(net, DATA, layers=layers).values
    graph = make(net)
    assert measure(graph, DATA, layers=layers).values == pytest.approx(expected, rel=1e-6)
    if make is not exported:  # its modules are all of one class
        assert find_blocks(graph, X) == layers


def test_a_module_that_a_graph_has_inlined_is_told(net):
    with pytest.raises(ValueError, match=r"'1' never runs .*or a traced graph has taken its place"):
        measure(torch.fx.symbolic_trace(net), DATA, layers=["1"])


class Shifted(nn.Module):
    """Moves the logits, so that the output is not W h + b."""

    def forward(self, z):
        return z + torch.tensor([9.0, 0.0, 0.0, 0.0])


HEADS = {
    "four rows": (nn.Linear(8, 4), Y),
    "rows that the output does not follow": (nn.Sequential(nn.Linear(8, 4), Shifted()), Y),
    "one logit": (nn.Linear(8, 1), Y % 2),
    "one probability": (nn.Sequential(nn.Linear(8, 1), nn.Sigmoid()), Y % 2),
}


@pytest.mark.filterwarnings("ignore:measure.*two centred class means")
@pytest.mark.parametrize("case", HEADS)
def test_the_nc4_of_the_layer_before_the_head_is_that_of_the_network(case):
    torch.manual_seed(1)
    head, labels = HEADS[case]
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), head)
    data = TensorDataset(X, labels)
    with torch.no_grad():
        hidden, output = net[:2](X), net(X)
    above = 0.5 if "probability" in case else 0.0
    decided = output.argmax(1) if output.shape[1] > 1 else (output[:, 0] > above).long()
    found = measure(net, data, measures=[NeuralCollapse(layers=["0", "1"])]).values
    for layer, features in (("0", net[0](X).detach()), ("1", hidden)):
        expected = reference.decided_mismatch(features.numpy(), labels.numpy(), decided.numpy())
        assert found[f"nc_layers/data/{layer}/nc4"] == pytest.approx(expected, abs=1e-12)
    assert found["nc_layers/data/1/nc4"] == found["nc/data/nc4"]
    assert found["nc_layers/data/1/nc1"] == found["nc/data/nc1"]


def test_layers_without_a_head_have_no_decisions_to_compare():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7))
    of = NeuralCollapse(head=False, layers=["1"])
    values = measure(net, DATA, measures=[of]).values
    assert [key for key in values if "_layers/" in key] == [
        "nc_layers/data/1/nc1",
        "nc_layers/data/1/cdnv",
    ]


@pytest.mark.parametrize("layers", [(), 3, [3], ""])
def test_layers_that_are_no_names_are_refused(layers):
    for kind in (EquiSeparation, NeuralCollapse):
        with pytest.raises(ValueError, match="layers must be one or more names"):
            kind(layers=layers)
