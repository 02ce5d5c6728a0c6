"""Projects with heads of all kinds, or without one."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.projects.harness import AS_IT_IS, Project, Training

CLASSES = 4
WIDTH = 6


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + torch.relu(self.linear(self.norm(x)))


def backbone(width=12, depth=3):
    return nn.Sequential(nn.Linear(WIDTH, width), *(Block(width) for _ in range(depth)))


def vectors(counts=(9, 8, 8, 7), seed=0, labels=None):
    """Samples of separated classes, numbered from 0 or by the labels given."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = 1.5 * torch.randn(len(counts), WIDTH, generator=random)
    x = centres[y] + torch.randn(len(y), WIDTH, generator=random)
    return TensorDataset(x, y if labels is None else torch.tensor(labels)[y])


def loaded(dataset, batch_size=8):
    return DataLoader(dataset, batch_size, shuffle=True)


def with_head(head, dataset=None):
    dataset = vectors() if dataset is None else dataset
    return Training(nn.Sequential(*backbone(), head)), loaded(dataset)


BLOCKS = dict.fromkeys(["input", "net.1", "net.2", "net.3"], AS_IT_IS)


def contrastive_loss(first, second):
    """Cross-entropy of finding each sample's other view among those of all."""
    first, second = (nn.functional.normalize(z, dim=1) for z in (first, second))
    same = torch.arange(len(first), device=first.device)
    return nn.functional.cross_entropy(first @ second.T / 0.5, same)


class Contrastive(Training):
    """Learns that two noisy views belong together; labels are for the probe alone."""

    def __init__(self):
        super().__init__(backbone())
        self.projection_head = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 8))

    def forward(self, x):
        return self.projection_head(self.net(x))

    def training_step(self, batch, _):
        views = [self(batch[0] + 0.1 * torch.randn_like(batch[0])) for _ in range(2)]
        return contrastive_loss(*views)


class CosineHead(nn.Module):
    """Logits are scaled cosines."""

    def __init__(self, width, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, width))

    def forward(self, h):
        return 8 * nn.functional.normalize(h) @ nn.functional.normalize(self.weight).T


class LoRALinear(nn.Module):
    """A frozen linear layer and a product of two small matrices that learns."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.normal_(self.lora_B.weight, std=0.5)

    def forward(self, h):
        return self.base(h) + 2 * self.lora_B(self.lora_A(h))


def rows_with_adapter(module, name):
    head = module.get_submodule(name)
    W, A, B = (x.weight.cpu().double() for x in (head.base, head.lora_A, head.lora_B))
    return W + 2 * B @ A, head.base.bias


class FixedSimplex(nn.Module):
    """A classifier that does not learn: a simplex, kept in a buffer."""

    def __init__(self, width, classes):
        super().__init__()
        directions = torch.linalg.qr(torch.randn(width, classes)).Q
        self.register_buffer("simplex", directions @ (torch.eye(classes) - 1 / classes))

    def forward(self, h):
        return h @ self.simplex


class Encoder(Training):
    """Learns as `Contrastive`, by a projection head that is no part of forward."""

    def __init__(self):
        super().__init__(nn.Sequential(*backbone(), nn.Identity()))  # in place of a classifier
        self.projection = nn.Linear(12, 8)

    def training_step(self, batch, _):
        views = [self(batch[0] + 0.1 * torch.randn_like(batch[0])) for _ in range(2)]
        return contrastive_loss(*map(self.projection, views))


class LateFusion(nn.Module):
    """Adds up the logits of two parts of the input."""

    def __init__(self):
        super().__init__()
        parts = (nn.Sequential(nn.Linear(3, 12), Block(12), Block(12)) for _ in range(2))
        self.left, self.right = parts
        self.of_left, self.of_right = nn.Linear(12, CLASSES), nn.Linear(12, CLASSES)

    def forward(self, x):
        return self.of_left(self.left(x[:, :3])) + self.of_right(self.right(x[:, 3:]))


class OneLogit(Training):
    """Two classes and one logit, trained with binary cross-entropy."""

    def forward(self, x):
        return self.net(x)[:, 0]

    def training_step(self, batch, _):
        return nn.functional.binary_cross_entropy_with_logits(*self.measured(batch, "train"))


def one_logit():
    x, y = vectors((14, 12)).tensors
    module = OneLogit(nn.Sequential(*backbone(), nn.Linear(12, 1)))
    return module, loaded(TensorDataset(x, y.float()))


class Things(Dataset):
    """Samples with two labels, which are independent of each other."""

    def __init__(self):
        self.x, self.shape = vectors().tensors
        self.colour = torch.arange(len(self.x)) % CLASSES
        self.x = self.x + nn.functional.one_hot(self.colour, WIDTH)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.shape[index], self.colour[index]


class TwoTasks(Training):
    """One backbone with a head for each of two labels."""

    def __init__(self):
        super().__init__(backbone())
        self.shape_head, self.colour_head = nn.Linear(12, CLASSES), nn.Linear(12, CLASSES)

    def forward(self, x):
        h = self.net(x)
        return {"shape": self.shape_head(h), "colour": self.colour_head(h)}

    def measured(self, batch, probe):
        return self(batch[0])[probe], batch[1 if probe == "shape" else 2]

    def training_step(self, batch, _):
        losses = [
            nn.functional.cross_entropy(*self.measured(batch, task)) for task in ("shape", "colour")
        ]
        return sum(losses)


class ColumnHead(nn.Module):
    """The head of LDAM, for long tails: scaled cosines with the columns of its weight."""

    def __init__(self, width, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, classes))

    def forward(self, h):
        return 8 * nn.functional.normalize(h) @ nn.functional.normalize(self.weight, dim=0)


class Adapted(Training):
    """Domain adaptation: returns features, logits, and logits of the domain."""

    def __init__(self):
        super().__init__(backbone())
        self.classifier, self.domain = nn.Linear(12, CLASSES), nn.Linear(12, 2)

    def forward(self, x):
        h = self.net(x)
        return h, self.classifier(h), self.domain(h)

    def measured(self, batch, probe):
        return self(batch[0])[1], batch[1]

    def training_step(self, batch, _):
        x, y = batch
        (_, logits, source), (*_, target) = self(x), self(x + 0.5)
        domains = torch.arange(2, device=self.device).repeat_interleave(len(x))
        of_domains = nn.functional.cross_entropy(torch.cat([source, target]), domains)
        return nn.functional.cross_entropy(logits, y) - 0.1 * of_domains


class Online(Contrastive):
    """Learns as `Contrastive`, with an online classifier of features that it does not change."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(12, CLASSES)

    def forward(self, x):
        h = self.net(x)
        return {"logits": self.classifier(h.detach()), "z": self.projection_head(h)}

    def measured(self, batch, probe):
        return self(batch[0])["logits"], batch[1]

    def training_step(self, batch, _):
        x, y = batch
        views = [self(x + 0.1 * torch.randn_like(x)) for _ in range(2)]
        of_views = contrastive_loss(*(view["z"] for view in views))
        return of_views + nn.functional.cross_entropy(views[0]["logits"], y)


PRESENT = list(range(3, 1000, 10))  # 100 of 1000 classes
TAIL = (40, 24, 12, 6, 3, 2)


PROJECTS = [
    Project(
        "Self-supervised, with a projection head",
        lambda: (Contrastive(), loaded(vectors())),
        dict.fromkeys(["input", "net.1", "net.2", "net.3"], AS_IT_IS),
        {},
        last="projection_head",
        said=["Found no head"],
    ),
    Project(
        "A cosine head",
        lambda: with_head(CosineHead(12, CLASSES)),
        BLOCKS,
        {"train": "net.4"},
        rows=lambda module, name: (module.get_submodule(name).weight, torch.zeros(CLASSES)),
        said=["nc3, unc3 are undefined (NaN): the head does not compute W h + b"],
        undefined=["nc3", "unc3"],
    ),
    Project(
        "LDAM's head, whose weight has a column per class, and a long tail",
        lambda: with_head(ColumnHead(12, len(TAIL)), vectors(TAIL)),
        BLOCKS,
        {"train": "net.4"},
        rows=lambda module, name: (module.get_submodule(name).weight.T, torch.zeros(len(TAIL))),
        code="[NeuralCollapse(), EquiSeparation(), MinorityCollapse()]",
        classes=len(TAIL),
        said=["nc3, unc3 are undefined (NaN): the head does not compute W h + b"],
        undefined=["nc3", "unc3"],
    ),
    Project(
        "Domain adaptation, whose forward returns features, logits and those of the domain",
        lambda: (Adapted(), loaded(vectors())),
        BLOCKS,
        {"train": "classifier"},
    ),
    Project(
        "Self-supervised, with an online classifier of detached features",
        lambda: (Online(), loaded(vectors())),
        BLOCKS,
        {"train": "classifier"},
    ),
    Project(
        "LoRA on the classifier",
        lambda: with_head(LoRALinear(nn.Linear(12, CLASSES))),
        BLOCKS,
        {"train": "net.4"},
        rows=rows_with_adapter,
    ),
    Project(
        "A fixed simplex as classifier (ETF)",
        lambda: with_head(FixedSimplex(12, CLASSES)),
        BLOCKS,
        {"train": "net.4"},
        rows=lambda module, name: (module.get_submodule(name).simplex.T, torch.zeros(CLASSES)),
    ),
    Project(
        "Self-supervised, without a head in forward",
        lambda: (Encoder(), loaded(vectors())),
        BLOCKS,
        {},
        last="net.4",
        said=["Found no head"],
    ),
    Project(
        "Two parts of the input, whose logits are added up",
        lambda: (Training(LateFusion()), loaded(vectors())),
        dict.fromkeys(["net.right.0", "net.right.1", "net.right.2"], AS_IT_IS),
        {"train": "net.of_right"},
        code='[NeuralCollapse(), EquiSeparation(layers=["net.right.*"])]',
        said=["output does not depend on the head 'net.of_right' alone"],
    ),
    Project(
        "One logit for two classes",
        one_logit,
        BLOCKS,
        {"train": "net.4"},
        classes=2,
        said=["two centred class means are always opposite"],
        undefined=[
            f"nc2_{kind}_{of}"
            for kind in ("equinorm", "equiangularity", "maximal_angle")
            for of in ("means", "weights")
        ]
        + ["nc2_etf_error", "gnc2"],
    ),
    Project(
        "Two tasks with a head each",
        lambda: (TwoTasks(), loaded(Things())),
        BLOCKS,
        {"shape": "shape_head", "colour": "colour_head"},
        code='shape = Probe("train", name="shape", unpack=lambda batch: (batch[0], batch[1])); '
        'colour = Probe("train", name="colour", unpack=lambda batch: (batch[0], batch[2])); '
        '[NeuralCollapse(head="shape_head", probe=shape), EquiSeparation(probe=shape), '
        'NeuralCollapse(head="colour_head", probe=colour)]',
    ),
    Project(
        "A head of 1000 rows and 100 classes",
        lambda: with_head(nn.Linear(12, 1000), vectors((3,) * 100, labels=PRESENT)),
        BLOCKS,
        {"train": "net.4"},
        classes=len(PRESENT),
        said=["the head 'net.4' has 1000 rows, and the probe has samples of 100"],
    ),
    Project(
        "A long tail of classes",
        lambda: with_head(nn.Linear(12, len(TAIL)), vectors(TAIL)),
        BLOCKS,
        {"train": "net.4"},
        code="[NeuralCollapse(), EquiSeparation(), MinorityCollapse()]",
        classes=len(TAIL),
    ),
]
