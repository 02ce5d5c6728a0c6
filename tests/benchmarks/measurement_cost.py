"""Time a measurement of all blocks against one bare forward sweep of the same loader.

    python -m tests.benchmarks.measurement_cost

Both run in turn in one process, with and without the feature cache, with an ordinary DataLoader and
with batches that need no collating (so that the loader hides nothing). The output shows medians of
the ratios of neighbouring runs. Times are those of one thread, without those in which other
programs had the core.
"""

import statistics
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lightning_nc
from lightning_nc.guards.unobtrusive import unobtrusive
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.request import Request

SAMPLES, BATCH, CLASSES, REPEATS = 1000, 100, 10, 5


class Dense(nn.Sequential):
    def __init__(self, before, after):
        super().__init__(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, h):
        return torch.relu(self.body(h) + self.shortcut(h))


class Encoder(nn.Module):
    """Attention and a perceptron, each added to its input.

    Torch's own layer runs fused code in evaluation, which any hook turns off.
    """

    def __init__(self, width, heads):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.heads = heads
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h):
        parts = self.project(self.norms[0](h)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        h = h + self.join(mixed.transpose(1, 2).flatten(2))
        return h + self.perceptron(self.norms[1](h))


def eight_layers():
    """The 8-layer network of the law's paper: seven hidden layers of width 100 and a classifier."""
    hidden = [Dense(100, 100) for _ in range(7)]
    return nn.Sequential(*hidden, nn.Linear(100, CLASSES)), (100,), None


def resnet18():
    """ResNet-18 with the stem for small images."""
    stages = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [
        block
        for before, after, stride in stages
        for block in (Residual(before, after, stride), Residual(after, after, 1))
    ]
    stem = nn.Sequential(nn.Conv2d(1, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)]
    return nn.Sequential(stem, *blocks, *top), (1, 28, 28), None


def transformer():
    """Six encoder layers over 32 positions of width 128."""
    layers = [Encoder(128, heads=4) for _ in range(6)]
    top = [nn.Flatten(), nn.Linear(32 * 128, CLASSES)]
    return nn.Sequential(*layers, *top), (32, 128), lightning_nc.masked_mean


class WholeBatches(Dataset):
    """Samples that are read as whole batches, without collating."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]

    def __getitems__(self, indices):
        return self.data[indices]


def loaders(data):
    usual = DataLoader(data, BATCH)
    collated = DataLoader(WholeBatches(data), BATCH, collate_fn=lambda batch: batch)
    return {"DataLoader": usual, "pre-collated": collated}


def bare_sweep(model, loader):
    with unobtrusive(model):
        for inputs, _ in loader:
            model(inputs)


def seconds(work):
    started = time.process_time()
    work()
    return time.process_time() - started


def ratio(model, pool, loader, cache_mb):
    """Median ratio of a measurement to a bare sweep, over repeated pairs after a warm-up."""
    probe = lightning_nc.Probe(loader, "bench", samples_per_class=None, cache_mb=cache_mb)
    requests = [Request(layers="blocks", pool=pool)]
    plan = None
    ratios = []
    for repeat in range(REPEATS + 1):
        measurement = GeometryPass(
            plain_runner(model), lambda: loader, probe, requests, Processes(), plan
        )
        measured, bare = seconds(measurement.run), seconds(lambda: bare_sweep(model, loader))
        plan = measurement.plan  # settled in the warm-up, as a callback does before training
        if repeat:
            ratios.append(measured / bare)
    return statistics.median(ratios), bare


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"{SAMPLES} samples, batches of {BATCH}, 1 thread\n")
    print("| network | loader | bare sweep | cached | not cached |")
    print("|---|---|---|---|---|")
    for build in (eight_layers, resnet18, transformer):
        model, shape, pool = build()
        data = TensorDataset(torch.randn(SAMPLES, *shape), torch.arange(SAMPLES) % CLASSES)
        for name, loader in loaders(data).items():
            cached, bare = ratio(model, pool, loader, cache_mb=4096)
            fresh, _ = ratio(model, pool, loader, cache_mb=0)
            print(
                f"| {build.__name__} | {name} | {bare:.3f} s | {cached:.2f} | {fresh:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
