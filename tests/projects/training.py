"""Projects that train in unusual ways."""

import copy

import pytorch_lightning
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.projects.harness import AS_IT_IS, Project, Training
from tests.projects.heads import BLOCKS, CLASSES, WIDTH, Block, backbone, loaded, vectors


def network():
    return nn.Sequential(*backbone(), nn.Linear(12, CLASSES))


class Mixup(Training):
    """Mixes samples in the training step, which a probe does not run."""

    def training_step(self, batch, _):
        x, y = batch
        order, share = torch.randperm(len(x)), float(torch.rand(()))
        logits = self(share * x + (1 - share) * x[order])
        losses = [nn.functional.cross_entropy(logits, labels) for labels in (y, y[order])]
        return share * losses[0] + (1 - share) * losses[1]


class Augmented(Training):
    """Augments on the device while it trains."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return (x * (1 + 0.5 * torch.randn_like(x)), y) if self.trainer.training else batch


class Checkpointed(nn.Module):
    """Computes the activations of its blocks anew in the backward pass."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(WIDTH, 12)
        self.blocks = nn.ModuleList(Block(12) for _ in range(3))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x):
        h = self.stem(x)
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=False)
        return self.head(h)


class Averages(pytorch_lightning.Callback):
    """Validates with exponential moving averages of the weights."""

    def __init__(self):
        self.averages, self.own = None, None

    def on_train_batch_end(self, trainer, pl_module, *_):
        if self.averages is None:
            self.averages = copy.deepcopy(pl_module.state_dict())
        for name, weight in pl_module.state_dict().items():
            self.averages[name].lerp_(weight, 0.2)

    def on_validation_start(self, trainer, pl_module):
        self.own = copy.deepcopy(pl_module.state_dict())
        pl_module.load_state_dict(self.averages)

    def on_validation_end(self, trainer, pl_module):
        pl_module.load_state_dict(self.own)


class Frozen(Training):
    """Transfer learning as in Lightning's documentation: a backbone that runs without gradients."""

    def __init__(self):
        super().__init__(backbone().requires_grad_(False))
        self.classifier = nn.Linear(12, CLASSES)

    def forward(self, x):
        self.net.eval()
        with torch.no_grad():
            features = self.net(x).flatten(1)
        return self.classifier(features)


class Distilled(Training):
    """Learns from a frozen teacher, which runs in forward, too."""

    def __init__(self):
        super().__init__(network())
        self.teacher = network().requires_grad_(False).eval()

    def forward(self, x):
        with torch.no_grad():
            taught = self.teacher(x)
        return {"teacher": taught, "logits": self.net(x)}

    def measured(self, batch, probe):
        return self(batch[0])["logits"], batch[1]

    def training_step(self, batch, _):
        outputs, loss = self(batch[0]), nn.functional.cross_entropy
        return loss(outputs["logits"], batch[1]) + loss(
            outputs["logits"], outputs["teacher"].softmax(1)
        )


class OnlySteps(Training):
    """Has no forward of its own."""

    forward = pytorch_lightning.LightningModule.forward

    def measured(self, batch, probe):
        return self.net(batch[0]), batch[1]


class EarlyExits(Training):
    """Classifies after each block."""

    def __init__(self):
        super().__init__(backbone())
        self.exits = nn.ModuleList(nn.Linear(12, CLASSES) for _ in range(3))

    def forward(self, x):
        stem, *blocks = self.net
        h, logits = stem(x), []
        for block, head in zip(blocks, self.exits, strict=True):
            h = block(h)
            logits.append(head(h))
        return logits

    def measured(self, batch, probe):
        return self(batch[0])[-1], batch[1]

    def training_step(self, batch, _):
        return sum(nn.functional.cross_entropy(logits, batch[1]) for logits in self(batch[0]))


class Siamese(Training):
    """Learns whether two samples are of one class; the network takes both."""

    def __init__(self):
        super().__init__(nn.Sequential(*backbone(), nn.Identity()))  # in place of a classifier

    def forward(self, a, b):
        return nn.functional.pairwise_distance(self.net(a), self.net(b))

    def measured(self, batch, probe):
        return self.net(batch[0]), batch[1]

    def training_step(self, batch, _):
        x, y = batch
        distance, same = self(x, x.roll(1, 0)), y == y.roll(1)
        return torch.where(same, distance, torch.relu(1 - distance)).square().mean()


def of(kind, net=network):
    return lambda: (kind(net()), loaded(vectors()))


HEAD = {"train": "net.4"}

PROJECTS = [
    Project("Mixup in training_step", of(Mixup), BLOCKS, HEAD),
    Project(
        "Augmentation in on_after_batch_transfer",
        of(Augmented),
        BLOCKS,
        {"clean": "net.4"},
        code='probe = Probe(dataset, name="clean"); '
        "[NeuralCollapse(probe=probe), EquiSeparation(probe=probe)]",
    ),
    Project(
        "Gradient checkpointing",
        of(Training, Checkpointed),
        dict.fromkeys(["input", "net.blocks.0", "net.blocks.1", "net.blocks.2"], AS_IT_IS),
        {"train": "net.head"},
    ),
    Project(
        "torch.compile",
        of(Training),
        BLOCKS,
        HEAD,
        wrap=lambda module: torch.compile(module, backend="eager"),
    ),
    Project(
        "Moving averages of the weights (EMA), by a callback after ours",
        of(Training),
        BLOCKS,
        HEAD,
        code='[NeuralCollapse(when="validation_end"), EquiSeparation(when="validation_end")]',
        beside=lambda: [Averages()],
        at_validation=True,
    ),
    Project(
        "A frozen backbone",
        lambda: (Frozen(), loaded(vectors())),
        BLOCKS,
        {"train": "classifier"},
    ),
    Project(
        "Distillation, with the teacher in forward",
        lambda: (Distilled(), loaded(vectors())),
        BLOCKS,
        HEAD,
    ),
    Project(
        "A module without forward",
        of(OnlySteps),
        BLOCKS,
        HEAD,
        code='probe = Probe("train", forward="net"); '
        "[NeuralCollapse(probe=probe), EquiSeparation(probe=probe)]",
    ),
    Project(
        "Early exits, of which the last is measured",
        lambda: (EarlyExits(), loaded(vectors())),
        BLOCKS,
        {"train": "exits.2"},
        code='probe = Probe("train", forward=lambda module, inputs: module(inputs)[-1]); '
        "[NeuralCollapse(probe=probe), EquiSeparation(probe=probe)]",
    ),
    Project(
        "A Siamese network, by the part that embeds",
        lambda: (Siamese(), loaded(vectors())),
        BLOCKS,
        {},
        last="net.4",
        code='probe = Probe("train", forward="net"); '
        "[NeuralCollapse(head=False, probe=probe), EquiSeparation(probe=probe)]",
    ),
    Project(
        "bf16-mixed precision", of(Training), BLOCKS, HEAD, options={"precision": "bf16-mixed"}
    ),
]
