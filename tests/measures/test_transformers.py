"""Transformers are measured layer by layer, with values computed by hand on their states."""

import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import (
    EquiSeparation,
    LocalElasticity,
    NeuralCollapse,
    Probe,
    find_blocks,
    first_token,
    masked_mean,
    measure,
)
from lightning_nc.functional import gradient_kernel
from lightning_nc.measures.local_elasticity import ElasticityMeasure
from tests import architectures, nets, reference
from tests.measures.test_measure import SAMPLES, Reviews, Y

ENCODERS = {
    "stock": {},
    "with a mask of numbers": {"mask": torch.float64},
    "tokens first": {"batch_first": False},
    "norm first": {"norm_first": True},
    "gelu": {"activation": "gelu"},
}


def mean(states, mask):
    return torch.stack([h[m.bool()].mean(0) for h, m in zip(states, mask, strict=True)])


def batch_of(dataset):
    (batch,) = DataLoader(dataset, len(dataset))
    return {key: value for key, value in batch.items() if key != "labels"}


def of_samples_first(states, inputs):
    return masked_mean(states.transpose(0, 1), inputs)


def by_hand(layer, h, padding):
    """An encoder layer from its weights; shapes (N, T, d) and (N, T)."""
    attention = layer.self_attn
    heads, activation = attention.num_heads, layer.activation

    def attend(x):
        parts = (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        scores = scores.masked_fill(padding[:, None, None], -torch.inf)
        return attention.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def feed(x):
        return layer.linear2(activation(layer.linear1(x)))

    if layer.norm_first:
        h = h + attend(layer.norm1(h))
        return h + feed(layer.norm2(h))
    h = layer.norm1(h + attend(h))
    return layer.norm2(h + feed(h))


@torch.no_grad()
def states_by_hand(net, inputs):
    h, states = net.embedding(inputs["input_ids"]), []
    for layer in net.encoder.layers:
        h = by_hand(layer, h, inputs["attention_mask"] == 0)
        states.append(h)
    return states


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("cache_mb", [0, 512])
def test_torchs_encoder_with_padding_is_measured_like_one_written_by_hand(options, cache_mb):
    net = architectures.StockEncoder(**options).double()
    pool = masked_mean if options.get("batch_first", True) else of_samples_first
    probe = Probe(DataLoader(Reviews(), 16), "data", samples_per_class=None, cache_mb=cache_mb)
    values = measure(net, probe, pool=pool).values
    inputs, labels = batch_of(Reviews()), Y.numpy()
    features = [mean(h, inputs["attention_mask"]).numpy() for h in states_by_hand(net, inputs)]
    fuzziness = [reference.separation_fuzziness(h, labels) for h in features]
    assert find_blocks(net, inputs) == architectures.numbered("encoder.layers", 3)
    expected = {f"separation_layers/data/encoder.layers.{i}": D for i, D in enumerate(fuzziness)}
    for name, value in reference.separation_values(fuzziness).items():
        expected[f"separation/data/{name}"] = value
    weight, bias = (parameter.detach().numpy() for parameter in net.head.parameters())
    for name, value in reference.collapse_values(features[-1], labels, weight, bias).items():
        expected[f"nc/data/{name}"] = value
    assert {key: values[key] for key in expected} == pytest.approx(expected, rel=1e-9)


def test_the_encoder_as_a_whole_is_one_point_whose_padding_is_not_lost():
    net = architectures.StockEncoder().double()
    layers = dict.fromkeys(["embedding", "encoder", "head"], nn.Flatten())
    values = measure(net, Reviews(), layers=layers, head=False).values
    h = states_by_hand(net, batch_of(Reviews()))[-1]
    expected = reference.separation_fuzziness(h.flatten(1).numpy(), Y.numpy())
    assert values["separation_layers/data/encoder"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("parameters", [None, ["head.*"], ["encoder.layers.1.**"]])
@pytest.mark.parametrize("grad", [True, False])
def test_gradients_of_torchs_encoder_with_padding_are_those_of_single_samples(parameters, grad):
    net, inputs = architectures.StockEncoder().double().eval(), architectures.padded()
    names = [n for n, _ in net.named_parameters() if parameters is None or in_part(n, parameters)]
    assert len(names) in (2, 12, 39)
    expected = reference.tangent_kernel(reference.sample_gradients(net, inputs, names=names))
    with torch.set_grad_enabled(grad):
        kernel = gradient_kernel(net, inputs, parameters=parameters)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.allclose(kernel, torch.from_numpy(expected), rtol=1e-9)


def in_part(name, parameters):
    return name.startswith(parameters[0].rstrip("*"))


@pytest.mark.filterwarnings("ignore:.*took a backward pass for each sample")
@pytest.mark.parametrize("parameters", [None, ["head.**"], "last_layer"])
def test_local_elasticity_of_torchs_encoder_with_padding(parameters):
    net = architectures.StockEncoder().double()
    wanted = ElasticityMeasure(samples_per_class=3, parameters=parameters)
    found = measure(net, DataLoader(Reviews(), 16), measures=[wanted])
    batch = batch_of(Reviews())
    # of each class the first samples in the order of the probe, as the labels say
    arrays = found.arrays
    kernel, labels = (arrays[f"elasticity/data/{name}"] for name in ("kernel", "labels"))
    assert labels.tolist() == sorted(labels.tolist())
    names = None if parameters is None else ["head.weight", "head.bias"]
    K = reference.tangent_kernel(reference.sample_gradients(net.eval(), batch, names=names))
    diagonal = torch.from_numpy(K).diagonal()
    chosen = [int((diagonal - k).abs().argmin()) for k in kernel.diagonal()]
    assert torch.equal(Y[chosen], labels)
    assert torch.allclose(kernel, torch.from_numpy(K[chosen][:, chosen]), rtol=1e-9)


class Training(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = architectures.StockEncoder()

    def forward(self, **inputs):
        return self.net(**inputs)

    def training_step(self, batch, _):
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return nn.functional.cross_entropy(self(**inputs), batch["labels"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trained(folder, callbacks):
    torch.manual_seed(0)
    module = Training()
    nets.trainer(folder, callbacks).fit(module, DataLoader(Reviews(), 20, shuffle=True))
    return module.state_dict()


@pytest.mark.filterwarnings(*nets.only_our_warnings)
def test_training_torchs_encoder_is_measured_by_all_callbacks_and_unchanged(tmp_path):
    callbacks = [EquiSeparation(pool=masked_mean), NeuralCollapse(), LocalElasticity()]
    expected = trained(tmp_path, [])
    found = trained(tmp_path, callbacks)
    assert [len(callback.history) for callback in callbacks] == [3, 3, 3]
    layers = [f"separation_layers/train/net.encoder.layers.{i}" for i in range(3)]
    assert list(layers_of(callbacks[0].history[-1].values)) == layers
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_star_gives_one_point_per_layer_of_bert():
    bert = architectures.published("Bert").double()
    layers = ["bert.encoder.layer.*"]
    values = measure(bert, Reviews(), layers=layers, pool=masked_mean, head=False).values
    inputs = batch_of(Reviews())
    with torch.no_grad():
        states = bert.eval()(**inputs, output_hidden_states=True).hidden_states[1:]
    D = [
        reference.separation_fuzziness(mean(h, inputs["attention_mask"]).numpy(), Y.numpy())
        for h in states
    ]
    expected = {f"separation_layers/data/bert.encoder.layer.{i}": d for i, d in enumerate(D)}
    assert layers_of(values) == pytest.approx(expected, rel=1e-9)
    law = {f"separation/data/{k}": v for k, v in reference.separation_values(D).items()}
    assert {key: values[key] for key in law} == pytest.approx(law, rel=1e-9)
    with pytest.raises(ValueError, match=r"Unknown layer 'bert\.\*\.0'.*'bert\.\*\*\.0' matches"):
        measure(bert, Reviews(), layers=["bert.*.0"], pool=masked_mean, head=False)


def test_the_layers_of_a_vision_transformer():
    vit = architectures.published("ViT").double().eval()
    images = torch.randn(SAMPLES, 3, 32, 32).double() + Y[:, None, None, None]
    data, states = TensorDataset(images, Y), []
    values = measure(vit, data, layers="vit.layers.*", pool=first_token, head=False).values
    for layer in vit.vit.layers:
        layer.register_forward_hook(lambda _, args, h: states.append(h))
    with torch.no_grad():
        vit(images)
    expected = {
        f"separation_layers/data/vit.layers.{i}": reference.separation_fuzziness(h[:, 0], Y.numpy())
        for i, h in enumerate(states)
    }
    assert layers_of(values) == pytest.approx(expected, rel=1e-9)
    assert find_blocks(vit, data[:4]) == ["input", *architectures.numbered("vit.layers", 3)]


def layers_of(values):
    return {k: v for k, v in values.items() if k.startswith("separation_layers/")}
