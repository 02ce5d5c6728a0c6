"""Projects on images."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests import architectures
from tests.projects.harness import AS_IT_IS, MEAN_OF_TOKENS, Project, Training

CLASSES = 3


def images(size=8, channels=3, counts=(10, 8, 8), seed=0):
    """Images of classes that differ by a pattern."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    patterns = torch.randn(len(counts), channels, size, size, generator=random)
    noise = torch.randn(len(labels), channels, size, size, generator=random)
    return TensorDataset(patterns[labels] + noise, labels)


def loaded(dataset, **options):
    return DataLoader(dataset, 8, shuffle=True, **options)


def small_cnn():
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Dropout(0.2)),
        nn.Linear(16, CLASSES),
    )


def whole_map_cnn():
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.AvgPool2d(2), nn.Conv2d(6, CLASSES, 2), nn.Flatten()),
    )


class BasicBlock(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=out // channels, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(out), nn.BatchNorm2d(out), nn.ReLU(True)
        short = nn.Conv2d(channels, out, 1, stride=2) if channels != out else nn.Identity()
        self.downsample = short

    def forward(self, x):
        h = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(h + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 16), BasicBlock(16, 16))
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x):
        h = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(h.mean((2, 3)))


class Published(Training):
    def forward(self, x):
        return self.net(pixel_values=x).logits


def published(name, **changes):
    net = architectures.published(name, **changes)
    return Published(net), loaded(images(16, counts=(8, 7, 6, 6)))


def convnext():
    module, loader = published("ConvNext")
    for name, parameter in module.named_parameters():
        if name.endswith("layer_scale_parameter"):
            nn.init.ones_(parameter)  # 1e-6 at first: blocks would be the identity
    return module, loader


PROJECTS = [
    Project(
        "A small CNN",
        lambda: (Training(small_cnn()), loaded(images())),
        dict.fromkeys(["input", "net.2", "net.5", "net.9"], AS_IT_IS),
        {"train": "net.11"},
        code="[NeuralCollapse(), EquiSeparation(), LocalElasticity(samples_per_class=10)]",
        classes=CLASSES,
    ),
    Project(
        "A CNN whose head is a convolution over the whole map (as in braindecode)",
        lambda: (Training(whole_map_cnn()), loaded(images())),
        dict.fromkeys(["input", "net.2", "net.5"], AS_IT_IS),
        {"train": "net.7"},
        classes=CLASSES,
    ),
    Project(
        "A ResNet of BasicBlocks",
        lambda: (Training(ResNet()), loaded(images(6))),
        dict.fromkeys(
            ["input", "net.layer1.0", "net.layer1.1", "net.layer2.0", "net.layer2.1"], AS_IT_IS
        ),
        {"train": "net.fc"},
        classes=CLASSES,
    ),
    Project(
        "A ViT (transformers)",
        lambda: published("ViT", image_size=16, patch_size=4),
        {"input": AS_IT_IS}
        | dict.fromkeys(architectures.numbered("net.vit.layers", 3), MEAN_OF_TOKENS),
        {"train": "net.classifier"},
    ),
    Project(
        "A ConvNeXt (transformers)",
        convnext,
        {"input": AS_IT_IS}
        | dict.fromkeys(
            architectures.numbered("net.convnext.encoder.stages.{}.layers", 2, 2), AS_IT_IS
        ),
        {"train": "net.classifier"},
    ),
]
