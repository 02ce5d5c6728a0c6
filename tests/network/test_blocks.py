import copy
import warnings
from collections import OrderedDict

import lightning.pytorch as pl
import pytest
import torch
import torchmetrics
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from lightning_nc import EquiSeparation, NeuralCollapse, find_blocks, measure
from tests import architectures, reference
from tests.architectures import CLASSES, IMAGES, Block, numbered, published


class _Student(nn.Module):
    """Its teacher, of the same blocks, runs as well."""

    def __init__(self):
        super().__init__()
        self.teacher, self.student = (
            nn.Sequential(nn.Linear(5, 8), Block(), Block(), nn.Linear(8, CLASSES)) for _ in "ab"
        )

    def forward(self, x):
        with torch.no_grad():
            taught = self.teacher(x)
        return {"teacher": taught, "logits": self.student(x)}


def test_the_blocks_of_a_teacher_without_gradients_are_none_of_the_network():
    assert find_blocks(_Student(), torch.randn(4, 5)) == ["input", "student.1", "student.2"]


_VISION = {
    "ResNet": numbered("resnet.encoder.stages.{}.layers", 2, 2),
    "RegNet": numbered("regnet.encoder.stages.{}.layers", 2, 2),
    "Bit": numbered("bit.encoder.stages.{}.layers", 2, 2),
    "ConvNext": numbered("convnext.encoder.stages.{}.layers", 2, 2),
    "ConvNextV2": numbered("convnextv2.encoder.stages.{}.layers", 2, 2),
    "Swin": numbered("swin.encoder.layers.{}.blocks", 2, 2),
    "FocalNet": numbered("focalnet.encoder.stages.{}.layers", 2, 2),
    "EfficientNet": numbered("efficientnet.encoder.blocks", 4),
    "MobileNetV2": numbered("mobilenet_v2.layer", 16),
    "ViT": numbered("vit.layers", 3),
    "DeiT": numbered("deit.layers", 3),
    "Beit": numbered("beit.layers", 3),
    "Dinov2": numbered("dinov2.encoder.layer", 3),
}
_TEXT = {
    "Bert": numbered("bert.encoder.layer", 3),
    "Roberta": numbered("roberta.encoder.layer", 3),
    "Electra": numbered("electra.encoder.layer", 3),
    "MPNet": numbered("mpnet.encoder.layer", 3),
    "Albert": [f"albert.encoder.albert_layer_groups.0-{k}" for k in (1, 2, 3)],
    "DistilBert": numbered("distilbert.transformer.layer", 3),
    "GPT2": numbered("transformer.h", 3),
    "Llama": numbered("model.layers", 3),
}
_OWN = {
    "densenet": (architectures.DenseNet, ["block1", "block2", "block3"]),
    "vgg": (architectures.vgg, ["1", "3", "6", "8", "12"]),
    "alexnet": (architectures.AlexNet, ["features.1", "features.4", "classifier.2"]),
    "inception": (architectures.inception, ["1", "3", "5"]),
    "squeezenet": (architectures.squeezenet, ["2", "3", "5"]),
}


def images():
    return torch.randn(IMAGES)


@pytest.mark.parametrize("name", _VISION)
def test_finds_the_blocks_of_published_vision_networks(name):
    assert find_blocks(published(name), images()) == ["input", *_VISION[name]]


def test_finds_bottleneck_layers_of_a_resnet():
    model = published("ResNet", layer_type="bottleneck")
    assert find_blocks(model, images()) == ["input", *_VISION["ResNet"]]


@pytest.mark.parametrize("name", _TEXT)
def test_finds_the_layers_of_published_text_networks_without_raw_input(name):
    assert find_blocks(published(name), architectures.tokens()) == _TEXT[name]


@pytest.mark.parametrize("name", _OWN)
def test_finds_the_blocks_of_classic_convolutional_networks(name):
    make, expected = _OWN[name]
    assert find_blocks(make(), images()) == ["input", *expected]


def test_a_dict_batch_with_labels_is_unpacked_first():
    batch = architectures.tokens() | {"labels": torch.tensor([0, 1, 2])}
    assert find_blocks(published("Bert"), batch) == _TEXT["Bert"]


def test_falls_to_nonlinearities_in_an_mlp_of_torch_modules():
    assert find_blocks(architectures.mlp(), torch.randn(6, 5)) == ["input", "2", "5"]


def test_takes_a_class_whose_every_instance_is_a_bottleneck():
    assert find_blocks(architectures.block_mlp(), torch.randn(6, 5)) == ["input", "1", "2", "3"]


class _Scaled(nn.Module):
    """A block that holds its weight itself."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))

    def forward(self, x):
        return torch.tanh(x @ self.weight)


def test_blocks_whose_weights_are_parametrized_are_still_of_one_class():
    net = nn.Sequential(_Scaled(), _Scaled(), nn.Linear(5, CLASSES))
    for block in net[:2]:
        nn.utils.parametrizations.spectral_norm(block)
    assert find_blocks(net, torch.randn(6, 5)) == ["input", "0", "1"]


class _Detached(nn.Module):
    """Self-supervised, with an online classifier of features that it is not to change."""

    def __init__(self, kept=None):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(5, 8), Block(), Block())
        self.classifier, self.projector = nn.Linear(8, CLASSES), nn.Linear(8, 2 * CLASSES)
        self.register_parameter("scale", nn.Parameter(torch.ones(())))
        self.kept = kept

    def forward(self, x):
        h = self.backbone(x)
        self.scale.detach().clamp_(0, 1)
        if self.kept is not None:
            self.kept.append(h.detach().numpy())
        return {"logits": self.classifier(h.detach()), "z": self.projector(h)}


def test_blocks_before_a_detached_classifier_and_that_head_are_found():
    net = _Detached()
    assert find_blocks(net, torch.randn(6, 5)) == ["input", "backbone.1", "backbone.2"]
    data = torch.randn(40, 5), torch.arange(40) % CLASSES
    found = measure(net, data, measures=[EquiSeparation(), NeuralCollapse()]).values
    named = measure(net, data, measures=[NeuralCollapse(head="classifier")]).values
    assert found["nc/data/nc3"] == pytest.approx(named["nc/data/nc3"])
    assert "separation_layers/data/backbone.2" in found


def test_a_network_that_needs_what_it_detaches_to_be_detached_is_measured():
    data = torch.randn(40, 5), torch.arange(40) % CLASSES
    found, plain = (
        measure(net, data, measures=[NeuralCollapse()]).values
        for net in (_seeded(lambda: _Detached(kept=[])), _seeded(_Detached))
    )
    assert found["nc/data/nc3"] == pytest.approx(plain["nc/data/nc3"])


def _seeded(make):
    torch.manual_seed(0)
    return make()


class _Frozen(nn.Module):
    """A head on a backbone that runs without gradients, and is worked on before they are back."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = architectures.block_mlp(), nn.Linear(CLASSES, CLASSES)

    def forward(self, x):
        with torch.no_grad():
            h = self.backbone(x).flatten(1)
        return self.head(h)


def test_finds_the_blocks_of_a_backbone_that_runs_without_gradients():
    names = ["input", "backbone.1", "backbone.2", "backbone.3"]
    with torch.no_grad():
        assert find_blocks(_Frozen(), torch.randn(6, 5)) == names
        assert not torch.is_grad_enabled()


class _Recomputed(nn.Sequential):
    """Computes each part anew in the backward pass, as by torch's default, also in evaluation."""

    def forward(self, x):
        for part in self:
            x = checkpoint(part, x, use_reentrant=True)
        return x


def test_finds_blocks_in_reentrant_checkpoints():
    net = _Recomputed(*architectures.block_mlp())
    assert find_blocks(net, torch.randn(6, 5)) == ["input", "1", "2", "3"]


class _Bypassed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.bypassed = Block(), Block()
        self.relu, self.head = nn.ReLU(), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.first(x)
        return self.head(self.relu(x + self.bypassed(x)))


def test_drops_a_class_with_one_bypassed_instance():
    names = ["input", "first.relu", "bypassed.relu", "relu"]
    assert find_blocks(_Bypassed(), torch.randn(6, 8)) == names


class _Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Block()

    def forward(self, x):
        return self.inner(x)


def test_takes_the_outermost_class_on_a_tie():
    model = nn.Sequential(_Outer(), _Outer(), nn.Linear(8, CLASSES))
    assert find_blocks(model, torch.randn(6, 8)) == ["input", "0", "1"]


class _SharedReLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 8)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.relu(self.second(self.relu(self.first(x)))))


def test_a_module_that_runs_twice_gives_two_points():
    assert find_blocks(_SharedReLU(), torch.randn(6, 5)) == ["input", "relu-1", "relu-2"]


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.ModuleList([Block(), Block()]), nn.Linear(8, CLASSES)

    def forward(self, x):
        for block in [*self.blocks, *self.blocks]:
            x = block(x)
        return self.head(x)


def test_blocks_that_run_twice_are_bottlenecks_by_all_their_runs_together():
    expected = ["input", "blocks.0-1", "blocks.1-1", "blocks.0-2", "blocks.1-2"]
    assert find_blocks(_Twice(), torch.randn(6, 8)) == expected


class _Loop(nn.Module):
    def __init__(self, skips=False):
        super().__init__()
        self.stem, self.relu, self.block = nn.Linear(5, 8), nn.ReLU(), Block()
        self.head, self.skips = nn.Linear(8, CLASSES), skips

    def forward(self, x):
        first = x = self.relu(self.stem(x))
        for _ in range(3):
            x = self.block(x + first if self.skips else x)
        return self.head(x)


def test_a_block_in_a_loop_is_a_layer_for_each_run():
    assert find_blocks(_Loop(), torch.randn(6, 5)) == ["input", "block-1", "block-2", "block-3"]


def test_a_module_in_a_loop_that_reads_the_input_at_each_run_is_no_block():
    relus = ["relu", *(f"block.relu-{k}" for k in (1, 2, 3))]
    assert find_blocks(_Loop(skips=True), torch.randn(6, 5)) == ["input", *relus]


class _TupleBlock(Block):
    def forward(self, x):
        return super().forward(x), {"attention": x.detach()}


class _TupleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([_TupleBlock(), _TupleBlock()])
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        for block in self.blocks:
            x, _ = block(x)
        return {"logits": self.head(x), "hidden": x}


def test_blocks_may_return_tuples_and_the_network_a_dict():
    assert find_blocks(_TupleNet(), torch.randn(6, 8)) == ["input", "blocks.0", "blocks.1"]


class _TwoPaths(nn.Module):
    """As a block of a dual path network: a residual path, and another beside it."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, paths):
        a, b = paths
        return a + self.left(b).relu(), b + self.right(a).relu()


class _DualPath(nn.Module):
    def __init__(self, both):
        super().__init__()
        self.blocks, self.both = nn.Sequential(_TwoPaths(), _TwoPaths()), both
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        if not self.both:
            return self.head(self.blocks[1]((self.blocks[0]((x, x))[0], torch.ones(1, 8)))[0])
        a, b = self.blocks((x, x))
        return self.head(a + b)


@pytest.mark.parametrize("both", [True, False])
def test_several_tensors_that_count_are_told_where_features_are_of_one(both):
    data = TensorDataset(torch.randn(20, 8), torch.arange(20) % CLASSES)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = measure(_DualPath(both), data, measures=[EquiSeparation()])
    assert [name for name in found.values if name.startswith("separation_layers")] == [
        f"separation_layers/data/{name}" for name in ("input", "blocks.0", "blocks.1")
    ]
    sentence = "several tensors that 'blocks.0' returns"
    assert [sentence in str(each.message) for each in said] == [True] * both


class _InputBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.input, self.hidden, self.head = Block(), Block(), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.hidden(self.input(x)))


def test_a_block_called_input_is_not_taken_for_the_raw_input():
    x, y = torch.randn(20, 8), torch.arange(20) % CLASSES
    net = _InputBlock()
    assert find_blocks(net, x) == ["raw_input", "input", "hidden"]
    states = [x, net.input(x), net.hidden(net.input(x))]
    D = [reference.separation_fuzziness(h.detach().double().numpy(), y.numpy()) for h in states]
    for layers in ("blocks", ["hidden", "raw_input", "input"]):
        values = measure(net, TensorDataset(x, y), layers=layers).values
        found = [values[f"separation_layers/data/{k}"] for k in ("raw_input", "input", "hidden")]
        assert found == pytest.approx(D, rel=1e-6)


def test_names_that_are_found_select_the_same_layers_where_a_module_is_called_input():
    parts = {"input": nn.Linear(8, 8), "act": nn.ReLU(), "mid": nn.Linear(8, 8), "tanh": nn.Tanh()}
    net = nn.Sequential(OrderedDict(parts, head=nn.Linear(8, CLASSES)))
    data = TensorDataset(torch.randn(20, 8), torch.arange(20) % CLASSES)
    names = find_blocks(net, data[:])
    assert names == ["raw_input", "act", "tanh"]
    expected = pytest.approx(measure(net, data).values, nan_ok=True)
    assert measure(net, data, layers=names).values == expected


class _SkipsActivations(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Linear(8, 8), nn.Linear(8, 8), nn.ReLU()
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = x + self.act(self.first(x))
        return self.head(x + self.act(self.second(x)))


def test_a_way_around_an_activation_is_no_second_tensor_that_it_returns(recwarn):
    data = TensorDataset(torch.randn(20, 8), torch.arange(20) % CLASSES)
    found = measure(_SkipsActivations(), data, measures=[EquiSeparation()])
    layers = [f"separation_layers/data/{name}" for name in ("input", "act-1", "act-2")]
    assert [name for name in found.values if name.startswith("separation_layers")] == layers
    assert not recwarn.list


def test_logits_are_never_a_point():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, CLASSES), nn.Sigmoid())
    assert find_blocks(model, torch.randn(6, 5)) == ["input", "1"]


class _Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = architectures.block_mlp()
        self.accuracy = nn.ModuleList(
            torchmetrics.Accuracy(task="multiclass", num_classes=CLASSES) for _ in range(5)
        )
        self.ema = torch.optim.swa_utils.AveragedModel(self.net)
        self.teacher = copy.deepcopy(self.net)

    def forward(self, x):
        return self.net(x)


def test_metrics_and_averaged_copies_that_never_run_are_no_points():
    expected = ["input", "net.1", "net.2", "net.3"]
    assert find_blocks(_Module(), torch.randn(6, 5)) == expected


class _OwnLayer(nn.TransformerEncoderLayer):
    pass


@pytest.mark.parametrize("layer", [nn.TransformerEncoderLayer, _OwnLayer])
@pytest.mark.parametrize("options", [{}, {"batch_first": False}, {"norm_first": True}])
def test_takes_the_layers_of_torchs_own_encoder_with_padding(layer, options):
    model = architectures.StockEncoder(layer, **options)
    expected = numbered("encoder.layers", 3)
    assert find_blocks(model, architectures.padded()) == expected


class _Stacks(nn.Module):
    def __init__(self, *depths):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.stacks = nn.ModuleList(nn.TransformerEncoder(layer, depth) for depth in depths)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        for stack in self.stacks:
            x = stack(x)
        return self.head(x.mean(1))


def test_stacks_of_torchs_layers_are_no_blocks():
    points = find_blocks(_Stacks(2, 1), torch.randn(6, 4, 8))
    assert points == ["input", *numbered("stacks.{}.layers", 2, 1)]
    points = find_blocks(_Stacks(1, 1), torch.randn(6, 4, 8))
    assert points == ["input", *numbered("stacks.{}.layers", 1, 1)]


class _Queries(nn.Module):
    """Reads the input once and decodes it, or has every layer of the decoder read it."""

    def __init__(self, once):
        super().__init__()
        layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
        self.decoder, self.head = nn.TransformerDecoder(layer, 3), nn.Linear(8, CLASSES)
        self.once, self.queries = once, nn.Parameter(torch.randn(1, 4, 8))

    def forward(self, x):
        queries = self.queries.expand(len(x), -1, -1)
        h = self.decoder(x, queries) if self.once else self.decoder(queries, x)
        return self.head(h.mean(1))


def test_takes_the_layers_of_torchs_own_decoder_unless_each_reads_the_input():
    x = torch.randn(6, 4, 8)
    assert find_blocks(_Queries(once=True), x) == ["input", *numbered("decoder.layers", 3)]
    with pytest.raises(ValueError, match="Found no blocks"):
        find_blocks(_Queries(once=False), x)


class _Nest(nn.Module):
    """A block that may hold others of its class."""

    def __init__(self, *inner):
        super().__init__()
        self.inner, self.linear = nn.Sequential(*inner), nn.Linear(8, 8)

    def forward(self, x):
        return torch.tanh(self.linear(self.inner(x)))


def test_of_blocks_within_blocks_of_one_class_takes_the_outer_ones():
    model = nn.Sequential(_Nest(_Nest(), _Nest()), _Nest(_Nest(_Nest())), nn.Linear(8, CLASSES))
    assert find_blocks(model, torch.randn(6, 8)) == ["input", "0", "1"]


def test_blocks_within_one_block_of_their_class_are_no_sequence():
    model = nn.Sequential(_Nest(_Nest(_Nest())), nn.ReLU(), nn.Linear(8, CLASSES))
    assert find_blocks(model, torch.randn(6, 8)) == ["input", "1"]


def test_an_inner_block_that_is_bypassed_does_not_matter():
    class Residual(_Nest):
        def forward(self, x):
            return x + self.linear(self.inner(x))

    model = nn.Sequential(Residual(Residual()), Residual(), nn.Linear(8, CLASSES))
    assert find_blocks(model, torch.randn(6, 8)) == ["input", "0", "1"]


class _Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(5, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)))


def test_a_network_without_blocks_or_nonlinearity_modules_asks_for_names():
    with pytest.raises(ValueError, match=r"Found no blocks.*layers=\[\"layer1\", \"layer2\"\]"):
        find_blocks(_Functional(), torch.randn(6, 5))
