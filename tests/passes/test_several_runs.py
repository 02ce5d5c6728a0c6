"""Networks whose parts run several times in one forward pass."""

import pytest
import torch
from torch import nn

from lightning_nc import EquiSeparation, LocalElasticity, NeuralCollapse, measure
from tests import architectures, reference


class _Views(nn.Module):
    """Runs a network on its input and on a second view of it; one way of doing so."""

    def __init__(self, net, way):
        super().__init__()
        self.net, self.way, self.kept = net, way, None

    def forward(self, x):
        return self.way(self, x)


def _without_gradients(self, x):
    with torch.no_grad():
        self.kept = self.net(x + 3)
    return self.net(x)


def _detached(self, x):
    target = self.net(x + 3).detach()
    return {"target": target, "logits": self.net(x)}


def _kept(self, x):
    output = self.net(x)
    self.kept = self.net(x + 3)
    return output


def _returned(self, x):
    return {"logits": self.net(x), "second": self.net(x + 3)}


def _perturbed(self, x):
    """The input moves along a gradient of the network, so that nothing leads back to it."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        gradient = torch.autograd.grad(self.net(x + 3).sum(), x)[0]
    return self.net(x + 0 * gradient)


def _data():
    torch.manual_seed(0)
    labels = torch.arange(48) % architectures.CLASSES
    return 2 * torch.randn(architectures.CLASSES, 5)[labels] + torch.randn(48, 5), labels


@pytest.mark.parametrize(
    "family",
    [
        lambda name: EquiSeparation(),
        lambda name: NeuralCollapse(layers="blocks"),
        lambda name: NeuralCollapse(head=name),
        lambda name: NeuralCollapse(head=False),
        lambda name: LocalElasticity(parameters="last_layer"),
    ],
    ids=["separation", "layers", "named head", "no head", "elasticity"],
)
@pytest.mark.parametrize("way", [_without_gradients, _detached, _kept, _returned, _perturbed])
def test_of_two_runs_the_one_that_makes_the_output_is_measured(way, family):
    net = architectures.block_mlp()
    alone = measure(net, _data(), measures=[family("4")]).values
    among = measure(_Views(net, way), _data(), measures=[family("net.4")]).values
    assert list(among.values()) == pytest.approx(list(alone.values()), rel=1e-12)


class _Loop(nn.Module):
    """The same blocks again and again, as in a universal transformer."""

    def __init__(self):
        super().__init__()
        self.stem, *self.blocks, self.head = architectures.block_mlp(depth=2)
        self.blocks = nn.ModuleList(self.blocks)
        self.states = []

    def forward(self, x):
        self.states = [self.stem(x)]
        for block in 3 * [*self.blocks]:
            self.states.append(block(self.states[-1]))
        return self.head(self.states[-1])


@pytest.mark.parametrize("layers", ["blocks", ["blocks.1", "input", "blocks.0"]])
def test_layers_that_run_in_a_loop_are_in_running_order(layers):
    torch.manual_seed(1)
    net, x, y = _Loop().double(), *_data()
    x = x.double()
    with torch.no_grad():
        net(x)
    states = [x, *net.states[1:]]
    values = measure(net, (x, y), measures=[EquiSeparation(layers=layers)]).values
    D = [reference.separation_fuzziness(h.numpy(), y.numpy()) for h in states]
    measured = [value for key, value in values.items() if key.startswith("separation_layers")]
    assert measured == pytest.approx(D, rel=1e-9)
    rho, _, r, _ = reference.separation_law(D)
    assert values["separation/data/rho"] == pytest.approx(rho, rel=1e-9)
    assert values["separation/data/pearson_r"] == pytest.approx(r, rel=1e-9)
