"""Projects whose batches are of other forms than pairs of tensors."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from tests.projects.harness import AS_IT_IS, ByHand, Project, Training
from tests.projects.heads import BLOCKS, CLASSES, Block, backbone, vectors


class Named(Dataset):
    """Samples with their numbers and the names of their files."""

    def __init__(self):
        self.x, self.y = vectors().tensors

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x, y = self.x[index], self.y[index]
        return {"index": index, "path": f"{index}.png", "image": x, "label": y}


class OfNamed(Training):
    """Takes the image of a batch."""

    def __init__(self):
        super().__init__(nn.Sequential(*backbone(), nn.Linear(12, CLASSES)))

    def measured(self, batch, probe):
        return self(batch["image"]), batch["label"]


class Rows(Dataset):
    """Rows of a table, with categories and numbers."""

    def __init__(self):
        self.numbers, self.y = vectors().tensors
        random = torch.Generator().manual_seed(1)
        noise = torch.randint(0, 2, (len(self.y), 2), generator=random)
        self.categories = self.y[:, None] + noise

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        row = {"categories": self.categories[index], "numbers": self.numbers[index]}
        return row, self.y[index]


class OfRows(Training):
    """Embeds the categories, and takes both as one dict."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(14, 12), Block(12), Block(12), Block(12)))
        self.embeddings = nn.ModuleList(nn.Embedding(CLASSES + 1, 4) for _ in range(2))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, row):
        columns = zip(self.embeddings, row["categories"].T, strict=True)
        embedded = [embedding(column) for embedding, column in columns]
        return self.head(self.net(torch.cat([*embedded, row["numbers"]], 1)))


def padded(samples):
    """A batch whose sequences are as long as the longest."""
    x, y = zip(*samples, strict=True)
    return nn.utils.rnn.pad_sequence(x, batch_first=True), torch.stack(y)


class Waves(Dataset):
    """Sounds of several lengths, whose pitch tells the class."""

    def __init__(self):
        self.y = torch.arange(32) % CLASSES
        random = torch.Generator().manual_seed(2)
        lengths = torch.randint(60, 90, (32,), generator=random).tolist()
        self.x = [
            torch.sin(torch.arange(n) * (1 + y) / 5) + 0.2 * torch.randn(n, generator=random)
            for n, y in zip(lengths, self.y.tolist(), strict=True)
        ]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class OfWaves(Training):
    """Convolutions over time, and the mean of what they return."""

    def __init__(self):
        steps = [nn.Conv1d(1, 8, 5, 3), nn.ReLU(), nn.Conv1d(8, 8, 3, 2), nn.ReLU()]
        super().__init__(nn.Sequential(*steps, nn.Conv1d(8, 8, 3), nn.ReLU()))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.net(x[:, None]).mean(2))


class Words(Dataset):
    """Counts of words, whose class decides which are frequent."""

    def __init__(self):
        self.y = torch.arange(32) % CLASSES
        random = torch.Generator().manual_seed(3)
        often = torch.arange(20) % CLASSES == self.y[:, None]
        self.x = torch.poisson(0.1 + 0.9 * often, random)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def sparse(samples):
    """A batch that stores no zeros."""
    x, y = default_collate(samples)
    return x.to_sparse(), y


class OfWords(Training):
    """Adds up the vectors of words."""

    def __init__(self):
        super().__init__(nn.Sequential(*(Block(12) for _ in range(3)), nn.Linear(12, CLASSES)))
        self.vectors = nn.Parameter(torch.randn(20, 12))

    def forward(self, x):
        return self.net(torch.sparse.mm(x, self.vectors))


class Graph(NamedTuple):
    """A molecule: atoms, and bonds in both directions."""

    x: Tensor
    edge_index: Tensor
    y: Tensor


class Graphs:
    """Several graphs as one, as in torch_geometric: the graph of each node is in `batch`."""

    def __init__(self, graphs):
        sizes = torch.tensor([len(graph.x) for graph in graphs])
        starts = (sizes.cumsum(0) - sizes).tolist()
        edges = [graph.edge_index + start for graph, start in zip(graphs, starts, strict=True)]
        self.x, self.edge_index = torch.cat([graph.x for graph in graphs]), torch.cat(edges, 1)
        self.batch = torch.arange(len(graphs)).repeat_interleave(sizes)

    def to(self, device, **_):
        self.x, self.edge_index = self.x.to(device), self.edge_index.to(device)
        self.batch = self.batch.to(device)
        return self


class Molecules(NamedTuple):
    """A batch with inputs, labels for one task, and weights, as in chemprop."""

    graphs: Graphs
    more: Any
    Y: Tensor
    w: Tensor

    @classmethod
    def of(cls, graphs):
        y = torch.stack([graph.y for graph in graphs]).float()
        return cls(Graphs(graphs), None, y[:, None], torch.ones(len(y), 1))


def molecules():
    """Chains of atoms, whose kinds tell the class."""
    random = torch.Generator().manual_seed(4)
    made = []
    for y in torch.arange(32) % CLASSES:
        n = int(torch.randint(3, 7, (), generator=random))
        bonds = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
        kinds = nn.functional.one_hot(y, CLASSES) + torch.randn(n, CLASSES, generator=random)
        made.append(Graph(kinds, torch.cat([bonds, bonds.flip(0)], 1), y))
    return made


class OfMolecules(Training):
    """Messages along bonds, their sums at atoms, and the mean over atoms."""

    def __init__(self):
        super().__init__(nn.ModuleList(nn.Linear(n, 12) for n in (CLASSES, 12, 12)))
        self.tau, self.head = nn.ReLU(), nn.Linear(12, CLASSES)

    def forward(self, graphs, more=None):
        start, end = graphs.edge_index
        sums = graphs.x.new_zeros(len(graphs.x), 12)
        of_bonds = self.tau(self.net[0](graphs.x[start]))
        of_bonds = self.tau(self.net[1](sums.index_add(0, end, of_bonds)[start]))
        of_atoms = self.tau(self.net[2](sums.index_add(0, end, of_bonds)))
        return self.head(means(of_atoms, graphs.batch))[:, None]  # of the only task

    def measured(self, batch, probe):
        return self(batch.graphs)[:, 0], batch.Y[:, 0].long()


def means(rows, graphs):
    """The mean over the rows of each graph."""
    return torch.stack([rows[graphs == graph].mean(0) for graph in graphs.unique()])


ATOMS = ByHand(lambda h, batch: means(h, batch.graphs.batch), "mean over nodes")
RAW_ATOMS = ATOMS._replace(take=lambda graphs, _: means(graphs.x, graphs.batch))
BONDS = ByHand(
    lambda h, batch: means(h, batch.graphs.batch[batch.graphs.edge_index[0]]), "mean over edges"
)
IMAGE = ByHand(lambda _, batch: batch["image"])
OF_COUNTS = ByHand(lambda h, _: h.to_dense())
MEAN_OVER_TIME = ByHand(lambda h, _: h.mean(2), "mean over tokens")

PROJECTS = [
    Project(
        "Batches as dicts, with numbers of samples and names of files",
        lambda: (OfNamed(), DataLoader(Named(), 8, shuffle=True)),
        BLOCKS | {"input": IMAGE},
        {"train": "net.4"},
    ),
    Project(
        "A table, as dicts of categories and numbers",
        lambda: (OfRows(), DataLoader(Rows(), 8, shuffle=True)),
        dict.fromkeys(["net.1", "net.2", "net.3"], AS_IT_IS),
        {"train": "head"},
    ),
    Project(
        "Sounds, padded to the longest of a batch",
        lambda: (OfWaves(), DataLoader(Waves(), 4, shuffle=True, collate_fn=padded)),
        dict.fromkeys(["net.1", "net.3", "net.5"], MEAN_OVER_TIME),
        {"train": "head"},
        said=["the raw input varies in size from batch to batch"],
    ),
    Project(
        "Bags of words, as sparse tensors",
        lambda: (OfWords(), DataLoader(Words(), 8, shuffle=True, collate_fn=sparse)),
        {"input": OF_COUNTS} | dict.fromkeys(["net.0", "net.1", "net.2"], AS_IT_IS),
        {"train": "net.3"},
    ),
    Project(
        "Molecules: graphs in named tuples, with messages along bonds (as in chemprop)",
        lambda: (OfMolecules(), DataLoader(molecules(), 8, shuffle=True, collate_fn=Molecules.of)),
        {"input": RAW_ATOMS, "tau-1": BONDS, "tau-2": BONDS, "tau-3": ATOMS},
        {"train": "head"},
    ),
]
