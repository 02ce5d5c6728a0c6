"""Networks and data whose samples are the positions of sequences or images."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_nc import Probe
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.request import Request
from tests import reference

N, T, V, D, R = 12, 5, 20, 8, 4
IGNORED = -100
REQUEST = Request(layers=["act"], classifier=True, needs_head=True)


class Tokens(nn.Module):
    """A label for each token.

    Args:
        way: How the axes run: tokens may be on the first axis, together with samples, or last.
    """

    def __init__(self, way="plain"):
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.act, self.way = nn.Embedding(V, D), nn.Sigmoid(), way
        self.inner, self.head = nn.Linear(D, D), nn.Linear(D, R)

    def forward(self, input_ids, attention_mask=None):
        h = self.embed(input_ids)
        if self.way == "time first":
            return self.head(self.act(self.inner(h.transpose(0, 1)))).transpose(0, 1)
        if self.way == "flattened":
            return self.head(self.act(self.inner(h.flatten(0, 1)))).view(*input_ids.shape, R)
        z = self.head(self.act(self.inner(h)))
        return z.transpose(1, 2) if self.way == "classes first" else z


class Pixels(nn.Module):
    """A label for each pixel, from maps that are coarser by a factor."""

    def __init__(self, factor=1, flattened=False):
        super().__init__()
        torch.manual_seed(1)
        self.inner, self.act = nn.Conv2d(2, D, factor, factor), nn.Sigmoid()
        self.head = nn.Linear(D, R) if flattened else nn.Conv2d(D, R, 1)
        self.flattened, self.factor = flattened, factor

    def forward(self, x):
        h = self.act(self.inner(x))
        if self.flattened:
            z = self.head(h.movedim(1, -1).flatten(0, 2)).view(len(h), *h.shape[2:], R)
            return z.movedim(-1, 1)
        return nn.functional.interpolate(self.head(h), scale_factor=self.factor)


def tokens(seed=0, n=N, t=T):
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, V, (n, t), generator=random)
    labels = torch.randint(0, R, (n, t), generator=random)
    labels[torch.rand(n, t, generator=random) < 0.3] = IGNORED
    labels[0] = IGNORED  # a sequence without a sample
    return TensorDataset(ids, labels)


def pixels(seed=0, n=7, size=(4, 6)):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, R, (n, *size), generator=random)
    labels[torch.rand(labels.shape, generator=random) < 0.3] = IGNORED
    return TensorDataset(torch.randn(n, 2, *size, generator=random), labels)


class Lengths(Dataset):
    """The sequences of another dataset, of which each ends somewhere."""

    def __init__(self, data):
        self.ids, self.labels = data.tensors
        self.lengths = 1 + torch.arange(len(self.ids)) % T

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        n = self.lengths[index]
        return self.ids[index, :n], self.labels[index, :n]

    def loader(self, batch_size, left=False):
        def collate(items):
            longest = max(len(ids) for ids, _ in items)
            shape = len(items), longest
            ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
            labels = torch.full(shape, IGNORED)
            for row, (x, y) in enumerate(items):
                part = slice(longest - len(x), longest) if left else slice(0, len(x))
                ids[row, part], labels[row, part], mask[row, part] = x, y, 1
            return {"input_ids": ids, "attention_mask": mask, "labels": labels}

        return DataLoader(self, batch_size, collate_fn=collate)


def run(net, source, rank=0, world=1, request=REQUEST, **probe):
    options = {"samples_per_class": None, "batch_size": None} | probe
    probe = Probe(source, "own", **options)
    one = GeometryPass(plain_runner(net), lambda: source, probe, [request], Processes(rank, world))
    (answer,) = one.run()
    if isinstance(answer, Exception):
        raise answer
    return one, answer


def values(answer):
    """The numbers of an answer."""
    (layer,), last = answer.layers.values(), answer.classifier
    return {
        "counts": answer.counts,
        "means": layer.means,
        "fuzziness": layer.fuzziness,
        "squares": last.features.squares,
        "W": last.weight,
        "mismatch": last.mismatch,
        "right": last.class_accuracy,
    }


def expected(features, labels, outputs, W):
    """The same from features (n, d), labels (n,) and outputs (n, R)."""
    kept = labels != IGNORED
    h, y, z = (each[kept].detach().double().numpy() for each in (features, labels, outputs))
    y = y.astype(int)
    means = reference.class_means(h, y)
    n = np.bincount(y)
    nearest = ((h[:, None] - means) ** 2).sum(2).argmin(1)
    squares = [((h[y == k] - means[k]) ** 2).sum() for k in range(R)]
    return {
        "counts": torch.tensor(n).double(),
        "means": torch.tensor(means),
        "fuzziness": n.sum() * reference.separation_fuzziness(h, y),
        "squares": torch.tensor(squares),
        "W": W.detach().double(),
        "mismatch": torch.tensor((z.argmax(1) != nearest).mean()),
        "right": torch.tensor([(z.argmax(1) == y)[y == k].mean() for k in range(R)]),
    }


def of_tokens(net, data, adjustment=0):
    ids, labels = data.tensors
    h = net.act(net.inner(net.embed(ids)))
    z = net.head(h) + adjustment
    return expected(h.flatten(0, 1), labels.flatten(), z.flatten(0, 1), net.head.weight)


def of_pixels(net, data):
    """Each pixel has the features of the cell of the map in which it lies."""
    x, labels = data.tensors
    h = net.act(net.inner(x))
    h = h.repeat_interleave(net.factor, 2).repeat_interleave(net.factor, 3).movedim(1, -1)
    W, b = net.head.weight.flatten(1), net.head.bias
    return expected(h.flatten(0, 2), labels.flatten(), h.flatten(0, 2) @ W.mT + b, W)


def run_all(rank, world):
    """Values of all positions, and of some that are drawn, in one of several processes."""
    found = {}
    for size in (1, 3, 12):
        found["all", size] = values(run(Tokens(), tokens(), rank, world, batch_size=size)[1])
        found["maps", size] = values(run(Pixels(2), pixels(), rank, world, batch_size=size)[1])
    drawn = run(Tokens(), tokens(), rank, world, batch_size=3, samples_per_class=4)
    found["drawn"] = values(drawn[1])
    found["batches"] = positions_of(drawn[0])
    return found


def positions_of(one):
    """Which positions were drawn: the sequence, the rank there, and the label of each."""
    return [
        (batch.index_of(i), int(batch.ranks[i]), int(batch.labels[i]))
        for batch in one.plan.batches
        for i in range(batch.size)
    ]
