"""The tangent kernel of layers and networks of many kinds, against gradients of single samples."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_nc.functional import gradient_kernel
from lightning_nc.tangent import inner_products, outer_products, recomputed_modules
from lightning_nc.tangent.checked_pass import CheckedPass
from lightning_nc.tangent.convolution import Convolution
from tests import architectures, nets, reference
from tests.tangent.cases import LAYERS, SEQUENCES, Net, randomised, words

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)
one_by_one = "took a backward pass for each sample"


def assert_agrees(net, inputs, outputs="all"):
    scalar = outputs if callable(outputs) else None
    gradients = reference.sample_gradients(net.double(), inputs, scalar)
    expected = reference.tangent_kernel(gradients)
    K = gradient_kernel(net, inputs, outputs)
    assert K.dtype == torch.float64
    assert np.diag(expected).max() > 0
    np.testing.assert_allclose(K.detach(), expected, rtol=0, atol=1e-10 * expected.max())


@pytest.mark.parametrize("case", LAYERS)
def test_layers_have_the_kernel_of_gradients_of_single_samples(case):
    assert_agrees(*LAYERS[case]())


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("by_positions", [True, False])
def test_both_routes_in_small_parts_agree_with_gradients_of_single_samples(
    case, by_positions, monkeypatch
):
    def chosen(self, o):
        return by_positions and self.in_groups == 1

    net, inputs = LAYERS[case]()
    monkeypatch.setattr(outer_products.OuterProducts, "_by_positions", chosen)
    for room, name, size in (
        (outer_products, "_AT_ONCE", 7),
        (recomputed_modules, "_AT_ONCE", 7),
        (inner_products, "_TERMS", 5),
    ):
        monkeypatch.setattr(room, name, size)
    assert_agrees(net, inputs)


@pytest.mark.parametrize("case", LAYERS)
def test_in_single_precision_the_kernel_is_right_to_its_digits(case):
    net, inputs = LAYERS[case]()
    expected = reference.tangent_kernel(reference.sample_gradients(net.double(), inputs))
    K = gradient_kernel(net.float(), inputs.float()).detach()
    np.testing.assert_allclose(K, expected, rtol=0, atol=2e-5 * expected.max())


@pytest.mark.parametrize("case", [case for case in LAYERS if case != "checkpoint"])
def test_layers_of_half_precision_have_the_kernel_of_their_rounded_weights(case):
    net, inputs = LAYERS[case]()
    half, rounded = net.bfloat16(), inputs.bfloat16()
    K = gradient_kernel(half, rounded)
    gradients = reference.sample_gradients(half.double(), rounded.double())
    expected = reference.tangent_kernel(gradients)
    np.testing.assert_allclose(K, expected, rtol=0, atol=2e-5 * expected.max())


# where a forward pass alone cannot tell which module answers for a parameter
PROVEN_WRONG = {
    "rows of all samples step by step",
    "weight used by another",
    "writes to its own input",
    "its second output",
    "a later write to its input",
}


@pytest.mark.parametrize("case", sorted(LAYERS.keys() - PROVEN_WRONG))
def test_what_needs_no_proof_is_right_without_one(case, monkeypatch):
    monkeypatch.setattr(CheckedPass, "broken", lambda *_: [])
    assert_agrees(*LAYERS[case]())


@pytest.mark.parametrize("options", [{"padding_idx": 1}, {"scale_grad_by_freq": True}, {}])
def test_embeddings_need_no_proof(options, monkeypatch):
    monkeypatch.setattr(CheckedPass, "broken", lambda *_: [])
    assert_agrees(words(**options), torch.tensor([[1, 1, 2], [3, 4, 3], [5, 6, 0]]))


@pytest.mark.parametrize("case", SEQUENCES)
def test_what_cannot_be_batched_takes_a_backward_pass_per_sample_and_says_so(case):
    x = torch.randn(4, 3, 4).double()
    with pytest.warns(RuntimeWarning, match=one_by_one) as told:
        assert_agrees(SEQUENCES[case](), x)
    assert [warning.filename for warning in told] == [__file__]


class Routed(nn.Module):
    """Only some rows pass through its layer, as through an expert of a mixture."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        chosen = (x.sum(1) > 0).nonzero().flatten()
        return x.index_add(0, chosen, self.linear(x[chosen]))


def test_the_reason_is_told_without_the_advice_of_torch():
    net = nn.Sequential(Routed(), nn.Linear(4, 2))
    with pytest.warns(RuntimeWarning, match=one_by_one) as told:
        assert_agrees(net, torch.randn(6, 4).double())
    assert "dynamic shape" in str(told[0].message)
    assert "file an issue" not in str(told[0].message)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}, {"padding_idx": -1}, {"sparse": True}])
def test_embeddings_agree(options):
    tokens = torch.tensor([[1, 1, 2], [6, 2, 1], [3, 4, 6], [0, 0, 0]])
    assert_agrees(words(**options), tokens)


def test_embedding_bags_agree():
    net = Net(lambda s, x: s.h(torch.tanh(s.e(x))), e=nn.EmbeddingBag(7, 3), h=nn.Linear(3, 2))
    assert_agrees(net, torch.tensor([[1, 1, 2], [6, 2, 1], [3, 4, 6]]))


def test_gradients_by_frequency_agree_where_no_two_samples_share_a_token():
    assert_agrees(words(scale_grad_by_freq=True), torch.tensor([[1, 1, 2], [3, 4, 3], [5, 6, 0]]))


def test_tied_embeddings_agree():
    net = Net(lambda s, x: s.h(torch.tanh(s.e(x)).mean(1)), e=nn.Embedding(7, 3))
    net.h = nn.Linear(3, 7, bias=False)
    net.h.weight = net.e.weight
    assert_agrees(net, torch.tensor([[1, 1, 2], [6, 2, 1], [3, 4, 6]]))


@pytest.mark.parametrize("name", ["Bert", "Llama", "ViT", "Swin", "ResNet", "ConvNext"])
def test_published_networks_agree(name):
    net = randomised(architectures.published(name)) if name == "ResNet" else None
    net = net or architectures.published(name).eval()
    text = name in ("Bert", "Llama")
    inputs = architectures.tokens() if text else torch.randn(3, 3, 32, 32).double()
    assert_agrees(net, inputs, lambda output: output.logits[:, 1])


def test_gpt_agrees_though_its_places_are_shared_by_all_samples():
    net = architectures.published("GPT2").eval()
    with pytest.warns(RuntimeWarning, match=one_by_one):
        assert_agrees(net, architectures.tokens(), lambda output: output.logits[:, 1])


@pytest.mark.parametrize("net", ["vgg", "AlexNet", "DenseNet", "inception", "squeezenet"])
def test_networks_of_convolutions_agree(net):
    images = torch.randn(3, 3, 32, 32).double()
    assert_agrees(randomised(getattr(architectures, net)()), images)


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("case", ["conv2d grouped", "layer norm", "windows", "bare parameters"])
def test_one_sample_and_two_are_enough(case, m):
    net, inputs = LAYERS[case]()
    assert_agrees(net, inputs[:m])


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.Conv1d, {"padding": 2, "dilation": 2}),
        (nn.Conv2d, {"stride": 2, "padding": 1}),
        (nn.Conv2d, {"padding": "same", "dilation": (1, 2)}),
        (nn.Conv3d, {}),
    ],
)
def test_weight_gradients_of_convolutions_are_the_same_by_patches(kind, options, each):
    layer = kind(2, 5, 3, **options).double()
    inputs = [torch.randn(4 * each, 2, *[size] * len(layer.stride)).double() for size in (6, 5)]
    g = [torch.randn_like(layer(x)) for x in inputs]
    products = Convolution(layer, {"weight"}, inputs, samples=4, directions=1)
    for rows in (slice(0, 5), slice(1, 3)):
        wanted = products._sample_by_sample(g, rows)
        assert torch.allclose(products._by_patches(g, rows), wanted, rtol=1e-12, atol=1e-12)
