"""Networks, modules and data that a careless measurement would change."""

import functools
import itertools
import os

import numpy as np
import torch
from torch import nn
from torch.ao.quantization import QuantStub, get_default_qat_qconfig, prepare_qat
from torch.nn.utils import parametrizations
from torch.utils.data import get_worker_info

from tests.nets import Blobs, mlp


class Merging(nn.Linear):
    """Merges a low-rank update into its weight for evaluation, which costs bits, as LoRA does."""

    def __init__(self, d, out):
        super().__init__(d, out)
        self.weight.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, d))
        self.up = nn.Parameter(torch.randn(out, 2))

    def train(self, mode=True):
        if mode is not self.training:
            self.weight.data += (-1 if mode else 1) * (self.up @ self.down).detach()
        return super().train(mode)

    def forward(self, x):
        update = self.up @ self.down if self.training else 0.0
        return nn.functional.linear(x, self.weight + update, self.bias)


class DropPath(nn.Module):
    """Leaves out branches of a residual network, by generators of its own, also in evaluation."""

    def __init__(self, branch):
        super().__init__()
        self.branch = branch
        self.noise = torch.Generator().manual_seed(3)
        self.rng = np.random.default_rng(4)

    def forward(self, x):
        kept = torch.rand(len(x), 1, generator=self.noise) < 0.5 + 0.4 * self.rng.random()
        return x + kept * self.branch(x)


class Remembering(nn.Module):
    """Keeps its last state, and normalises by statistics that it moves in evaluation, too."""

    def __init__(self, d):
        super().__init__()
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("last", None)
        self.register_buffer("hidden", torch.zeros(d), persistent=False)

    def forward(self, x):
        batch = x.detach().mean(0)
        self.mean = 0.9 * self.mean + 0.1 * batch.to(self.mean.dtype)
        self.last = batch
        self.hidden.add_(batch)
        return x - self.mean.to(x.dtype) + 0.01 * self.hidden.to(x.dtype)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 8, batch_first=True, dropout=0.2, num_layers=2)
        self.act = nn.Tanh()

    def forward(self, x):
        return self.act(self.lstm(input=x.unflatten(1, (3, 2)))[0][:, -1])


class Residual(nn.Module):
    """Calls its parts with keyword arguments, one of them twice."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.act(input=self.first(input=x))
        return self.last(input=self.act(self.first(input=hidden)) + x)


def merging():
    hidden = Merging(6, 12), nn.ReLU(), nn.Dropout(), Merging(12, 8), nn.ReLU()
    return nn.Sequential(*hidden, Merging(8, 3))


def drop_path():
    branches = [nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(*map(DropPath, branches), nn.Linear(6, 3))


def remembering():
    return nn.Sequential(
        nn.Linear(6, 8), Remembering(8), nn.ReLU(), Remembering(8), nn.Linear(8, 3)
    )


def normalised(normalise):
    """Both kinds of normalisation, those of parametrisations and those of hooks."""

    def net():
        hidden = normalise(nn.Linear(6, 8)), normalise(nn.Linear(8, 8))
        parts = hidden[0], nn.ReLU(), hidden[1], nn.ReLU(), nn.Linear(8, 3)
        return nn.Sequential(*parts)

    return net


class Graph(nn.Module):
    """Mixes features along the edges of a graph, whose sparse weights it moves in evaluation."""

    def __init__(self, d, layout):
        super().__init__()
        self.register_buffer("edges", (torch.ones(d, d).tril() / d).to_sparse(layout=layout))

    def forward(self, x):
        self.edges.values().mul_(0.999)
        return (self.edges.to(x.dtype) @ x.mT).mT


class Sizing(nn.Module):
    """Sizes its buffer in the first pass, and adds hooks of all kinds in each, to others also."""

    def __init__(self, others):
        super().__init__()
        self.register_buffer("largest", torch.empty(0))
        self.others = [others]  # not a part of this module

    def forward(self, x):
        if self.largest.numel() == 0:
            self.largest.resize_(x.shape[1]).fill_(1)
        torch.maximum(self.largest, x.detach().amax(0).to(self.largest), out=self.largest)
        for module in (self, *self.others):
            module.register_forward_hook(lambda _, args, out: out * 1.001)
            module.register_full_backward_pre_hook(lambda _, grads: tuple(2 * g for g in grads))
        return x / self.largest.to(x.dtype)


def graph(layout=torch.sparse_coo):
    hidden = nn.Linear(6, 8), nn.Tanh(), Graph(8, layout), nn.Linear(8, 8), nn.Tanh()
    return nn.Sequential(*hidden, nn.Linear(8, 3))


def sizing():
    first = nn.Linear(6, 8)
    hidden = first, nn.ReLU(), Sizing(first), nn.Linear(8, 8), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(8, 3))


def quantised():
    """A network prepared for quantisation-aware training, whose observers run in evaluation too."""
    hidden = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()
    net = nn.Sequential(QuantStub(), *hidden, nn.Linear(8, 3))
    net.qconfig = get_default_qat_qconfig("fbgemm")
    return prepare_qat(net.train())


def recurrent():
    return nn.Sequential(Recurrent(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def tied():
    net = nn.Sequential(
        nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)
    )
    net[2].weight = net[0].weight
    return net


def frozen():
    net = mlp()
    net[:4].requires_grad_(False)
    return net


def shrink(parameter):
    parameter.grad.mul_(0.9)


def hooked():
    """A network with hooks of the user on modules and tensors."""
    net = mlp()
    for scale in (1.5, 0.5):  # in this order
        net[0].register_forward_hook(lambda _, args, out, scale=scale: out * scale + 0.1)
        net[4].weight.register_hook(lambda grad, scale=scale: grad * scale + 0.01)
    net[4].register_forward_pre_hook(lambda _, args: args[0] + 0.01 * torch.randn(()))
    net[8].register_full_backward_hook(lambda _, grads, __: tuple(2 * g for g in grads))
    net[4].bias.register_post_accumulate_grad_hook(shrink)
    return net


class RememberingData(Blobs):
    """Augments by all that data remember in themselves, their class and their module."""

    reads = 0
    drawn: list[float]

    def __init__(self):
        super().__init__()
        RememberingData.reads, RememberingData.drawn = 0, []
        noise.cache_clear()
        RNG.bit_generator.state = np.random.default_rng(6).bit_generator.state
        self.inputs = self.inputs.numpy()
        self.turns = itertools.cycle([0.1, -0.1, 0.2])
        self.generators = [np.random.default_rng(index) for index in range(1500)]
        self.order = list(range(50_000))

    def __getitem__(self, index):
        RememberingData.reads += 1
        self.drawn.append(RNG.random() + self.generators[index].random() + next(self.turns))
        self.order.append(self.order.pop(0))
        self.inputs[index] *= 0.99
        x, y = torch.from_numpy(self.inputs[index].copy()), self.targets[index]
        x = x + 0.01 * sum(self.drawn[-3:]) + 1e-3 * self.reads + 1e-5 * self.order[0]
        return (x + noise(index)).float(), y


RNG = np.random.default_rng(6)


@functools.lru_cache
def noise(index):
    return 0.1 * torch.randn(6)


class Handle:
    """An open file, such as h5py's: of one process alone, and not to be sent to another."""

    def __init__(self):
        self.process = os.getpid()

    def __reduce__(self):
        raise TypeError("a handle cannot be pickled")

    def read(self, index):
        if os.getpid() != self.process:
            raise OSError("a handle was used after a fork")
        return index


class Archive(Blobs):
    """Samples in a file, which each worker opens."""

    handle = None

    def open(self):
        self.handle = Handle()

    def __getitem__(self, index):
        return super().__getitem__(self.handle.read(index))


def open_in_worker(_):
    get_worker_info().dataset.open()


NORMALISED = {
    "spectral norm": normalised(parametrizations.spectral_norm),
    "spectral norm by hooks": normalised(nn.utils.spectral_norm),
    "weight norm": normalised(parametrizations.weight_norm),
    "weight norm by hooks": normalised(nn.utils.weight_norm),
    "orthogonal weights": normalised(parametrizations.orthogonal),
}


class ByHand:
    """Two optimizers stepped by hand, one of them every fourth time: gradients are pending."""

    def __init__(self, net=None):
        super().__init__(net)
        self.automatic_optimization = False

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        self.manual_backward(loss)
        for optimizer, every in zip(self.optimizers(), (1, 4), strict=True):
            if (index + 1) % every == 0:
                optimizer.step()
                optimizer.zero_grad()

    def configure_optimizers(self):
        parts = self.net[:4], self.net[4:]
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in parts], []


class Keywords:
    """Batches are dicts, and the module is called with keyword arguments."""

    def on_before_batch_transfer(self, batch, _):
        return {"x": batch[0], "labels": batch[1]}

    def forward(self, *, x):
        return super().forward(x)

    def loss_of(self, batch):
        return nn.functional.cross_entropy(self(x=batch["x"]), batch["labels"])


def scheduled(make, **config):
    """The learning rate follows a scheduler."""

    class Scheduled:
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = make(optimizer, self.trainer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler} | config}

    return Scheduled


def plateau(optimizer, _):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.7)


def one_cycle(optimizer, trainer):
    steps = trainer.estimated_stepping_batches
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=steps)
