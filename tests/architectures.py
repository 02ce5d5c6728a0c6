"""Small networks of many shapes: published ones from their configurations, others by hand."""

from itertools import pairwise

import torch
from torch import nn

CLASSES = 4
IMAGES = (3, 3, 32, 32)


def tokens(samples=3, length=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 50, (samples, length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def published(name, **changes):
    """A model of transformers with random weights, for images of 32 x 32 or 50 tokens."""
    import transformers

    config = getattr(transformers, f"{name}Config")(
        **(_CONFIGURATIONS[name] | changes), num_labels=CLASSES
    )
    kind = "Sequence" if "vocab_size" in _CONFIGURATIONS[name] else "Image"
    return getattr(transformers, f"{name}For{kind}Classification")(config)


_STAGES = {"hidden_sizes": [8, 16], "depths": [2, 2]}
_VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_TEXT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
_WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2]}
_CONFIGURATIONS = {
    "ResNet": {"embedding_size": 8, "layer_type": "basic"} | _STAGES,
    "RegNet": {"embedding_size": 8, "groups_width": 4} | _STAGES,
    "Bit": {"embedding_size": 8, "num_groups": 4, "hidden_sizes": [8, 32], "depths": [2, 2]},
    "ConvNext": {"num_stages": 2} | _STAGES,
    "ConvNextV2": {"num_stages": 2} | _STAGES,
    "Swin": {"num_heads": [2, 2], "window_size": 4} | _WINDOWS,
    "FocalNet": {"focal_levels": [1, 1], "focal_windows": [3, 3]} | _WINDOWS,
    "MobileNetV2": {"image_size": 32, "depth_multiplier": 0.1, "min_depth": 8},
    "EfficientNet": {
        "image_size": 32,
        "width_coefficient": 0.25,
        "depth_coefficient": 0.3,
        "hidden_dim": 320,
        "in_channels": [32, 16, 24, 40],
        "out_channels": [16, 24, 40, 320],
        "kernel_sizes": [3, 3, 5, 3],
        "depthwise_padding": [],
        "strides": [1, 2, 2, 2],
        "num_block_repeats": [1, 2, 2, 1],
        "expand_ratios": [1, 6, 6, 6],
    },
    "ViT": _VISION,
    "DeiT": _VISION,
    "Beit": _VISION,
    "Dinov2": _VISION,
    "Bert": _TEXT,
    "Roberta": _TEXT,
    "Electra": _TEXT | {"embedding_size": 16},
    "MPNet": _TEXT,
    "Albert": _TEXT | {"embedding_size": 8},
    "Llama": _TEXT | {"pad_token_id": 0},
    "GPT2": {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 3, "n_head": 2}
    | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "DistilBert": {"vocab_size": 50, "max_position_embeddings": 16, "dim": 16, "n_layers": 3}
    | {"n_heads": 2, "hidden_dim": 32},
}


def numbered(prefix, *counts):
    """``prefix.i.j`` for the j-th of the counted in each part i; ``{}`` marks where i goes."""
    if "{}" not in prefix:
        return [f"{prefix}.{i}" for i in range(*counts)]
    return [f"{prefix.format(i)}.{j}" for i, count in enumerate(counts) for j in range(count)]


class DenseLayer(nn.Module):
    def __init__(self, channels, growth):
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, features):
        return self.conv(self.relu(self.norm(torch.cat(features, 1))))


class DenseBlock(nn.Sequential):
    def __init__(self, channels, growth, layers):
        super().__init__(*(DenseLayer(channels + growth * i, growth) for i in range(layers)))

    def forward(self, x):
        features = [x]
        for layer in self:
            features.append(layer(features))
        return torch.cat(features, 1)


class Transition(nn.Sequential):
    def __init__(self, channels, out):
        super().__init__(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, out, 1, bias=False),
            nn.AvgPool2d(2),
        )


class DenseNet(nn.Module):
    """Three dense blocks with two transitions between them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block1, self.transition1 = DenseBlock(8, 4, 2), Transition(16, 8)
        self.block2, self.transition2 = DenseBlock(8, 4, 3), Transition(20, 10)
        self.block3 = DenseBlock(10, 4, 2)
        self.classifier = nn.Linear(18, CLASSES)

    def forward(self, x):
        x = self.transition1(self.block1(self.stem(x)))
        x = self.block3(self.transition2(self.block2(x)))
        return self.classifier(torch.relu(x).mean((2, 3)))


def vgg():
    def stage(channels, out):
        return [
            nn.Conv2d(channels, out, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(4),
        ]

    layers = [*stage(3, 8), *stage(8, 8), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(16, CLASSES))


class AlexNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(32, 16), nn.ReLU(inplace=True), nn.Linear(16, CLASSES)
        )

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class ConvNormReLU(nn.Sequential):
    def __init__(self, channels, out, size):
        convolution = nn.Conv2d(channels, out, size, padding=size // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class Inception(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.branches = nn.ModuleList(ConvNormReLU(channels, 4, size) for size in (1, 3, 5))

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception():
    blocks = [Inception(8), nn.MaxPool2d(2), Inception(12), nn.MaxPool2d(2), Inception(12)]
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(ConvNormReLU(3, 8, 3), *blocks, *pooled, nn.Linear(12, CLASSES))


class Fire(nn.Module):
    def __init__(self, channels, squeezed, out):
        super().__init__()
        self.squeeze, self.relu = nn.Conv2d(channels, squeezed, 1), nn.ReLU(inplace=True)
        self.expand1 = nn.Conv2d(squeezed, out, 1)
        self.expand3 = nn.Conv2d(squeezed, out, 3, padding=1)

    def forward(self, x):
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1(x)), self.relu(self.expand3(x))], 1)


def squeezenet():
    """Its classifier is a convolution, followed by a nonlinearity and the average over places."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(inplace=True),
        Fire(8, 4, 8),
        Fire(16, 4, 8),
        nn.MaxPool2d(2),
        Fire(16, 4, 8),
        nn.Dropout(),
        nn.Conv2d(16, CLASSES, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def mlp(width=8, depth=2, inputs=5):
    sizes = [inputs] + [width] * depth
    layers = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


class Block(nn.Module):
    """A residual block: nothing goes round it, but its own layer is gone round."""

    def __init__(self, width=8):
        super().__init__()
        self.linear, self.relu = nn.Linear(width, width), nn.ReLU(inplace=True)

    def forward(self, x):
        return x + self.relu(self.linear(x))


def block_mlp(depth=3, width=8):
    blocks = [Block(width) for _ in range(depth)]
    return nn.Sequential(nn.Linear(5, width), *blocks, nn.Linear(width, CLASSES))


class StockEncoder(nn.Module):
    """Torch's own encoder on padded tokens; its features are means over those that are no padding.

    Args:
        layer: The class of its layers.
        batch_first: Whether it runs on (N, T, d) or on (T, N, d).
        mask: The type of the mask: True or minus infinity where there is padding.
        options: Further arguments of the layers.
    """

    def __init__(
        self,
        layer=nn.TransformerEncoderLayer,
        depth=3,
        batch_first=True,
        mask=torch.bool,
        **options,
    ):
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 16), nn.Linear(16, CLASSES)
        one = layer(16, 2, 32, batch_first=batch_first, **options)
        nested = batch_first and not one.norm_first
        self.encoder = nn.TransformerEncoder(one, depth, enable_nested_tensor=nested)
        self.mask = mask
        for parameter in self.encoder.parameters():  # they are the same in all layers
            nn.init.normal_(parameter, std=0.3)

    def forward(self, input_ids, attention_mask):
        padding = attention_mask == 0
        if self.mask != torch.bool:
            padding = torch.zeros(padding.shape).to(self.mask).masked_fill(padding, -torch.inf)
        h = self.embedding(input_ids)
        if self.encoder.layers[0].self_attn.batch_first:
            h = self.encoder(h, src_key_padding_mask=padding)
        else:
            h = self.encoder(h.transpose(0, 1), src_key_padding_mask=padding).transpose(0, 1)
        weights = attention_mask.to(h.dtype)[..., None]
        return self.head((weights * h).sum(1) / weights.sum(1))


def padded(samples=6, length=6, seed=0):
    """Tokens of sentences of different length, padded on the right."""
    inputs = tokens(samples, length, seed)
    lengths = 2 + torch.arange(samples) % (length - 1)
    inputs["attention_mask"] = (torch.arange(length) < lengths[:, None]).long()
    return inputs
