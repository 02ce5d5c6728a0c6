"""The networks of the examples of equi-separation; their trainings take too long for a test."""

import pytest
import torch

from lightning_nc import find_blocks
from tests.fashion_mnist import needs_fashion_mnist


@pytest.mark.parametrize(
    ("kind", "modules", "layers"),
    [  # as many as in the paper's figures, without the raw input
        ("AlexNet", 7, 7),
        ("VGG13", 12, 12),
        ("DenseNet", 4, None),
        ("ResNet, blocks of 2 layers", 4, 8),
        ("ResNet, blocks of 3 layers", 4, 12),
        ("ResNet, mixed blocks", 4, 10),
    ],
)
def test_the_modules_of_convolutional_networks_are_found(kind, modules, layers, example):
    networks = example("convolutional_networks")
    network = networks.Network(kind, epochs=1)
    images = torch.randn(4, 1, networks.SIZE, networks.SIZE)
    assert network(images).shape == (4, 10)
    assert len(find_blocks(network, images)) == 1 + modules
    assert layers is None or len(networks.layers_of(network)) == 1 + layers


@needs_fashion_mnist
def test_a_residual_network_is_measured_over_blocks_and_over_layers(example):
    networks = example("convolutional_networks")
    before, after = networks.train("ResNet, blocks of 2 layers", seed=0, epochs=1)
    for measured in (before, after):
        over_blocks, over_layers = (measured[name]["D"] for name in ("blocks", "layers"))
        assert over_layers[::2] == pytest.approx(over_blocks, rel=1e-9)  # every other ends a block
    assert after["accuracy"] > before["accuracy"]


def test_pieces_of_text_are_of_ten_modules_and_depend_on_the_seed(example):
    bert = example("equi_separation_bert")
    tokens, labels = bert.pieces(0)
    assert labels.bincount().tolist() == [bert.PIECES] * bert.MODULES
    assert tokens[:, 0].unique().tolist() == [bert.CLS]
    assert int(tokens.max()) < bert.VOCABULARY
    assert torch.equal(bert.pieces(0)[0], tokens)
    assert not torch.equal(bert.pieces(1)[0], tokens)


@pytest.mark.parametrize("reads", ["CLS", "average"])
def test_a_small_bert_gives_a_point_per_layer(reads, example, monkeypatch):
    bert = example("equi_separation_bert")
    monkeypatch.setattr(bert, "MODULES", 3)
    monkeypatch.setattr(bert, "PIECES", 8)
    before, after = bert.train_bert(reads, seed=0, epochs=1)
    assert len(before["D"]) == len(after["D"]) == bert.SIZES["num_hidden_layers"]
    assert 0 <= after["accuracy"] <= 1
