"""Time and memory of a measurement against the number of classes and of features.

    python -m tests.benchmarks.many_classes [--classes 50257 --features 768 --samples 1000000]

Features are made batch by batch: an embedding of the class and of another token, a linear layer and
a ReLU. They are not cached, so that a measurement reads them twice. It finds D; up to 4096
features, as last layers have, also NC1, NC2, CDNV and GNC2, and with a head NC3 and NC4. Each row
runs in a process of its own, on one thread, whose time is counted (not that in which other programs
had the core). The peak is what that process took beyond sweeps of the bare network and a small
measurement, in arrays of K x d numbers in float64 where these are large. Beside are two other
routes, of which one batch is timed: to the class sums by the dense K x N matrix of class members,
and to D by the d x d scatter and its pseudo-inverse. The features of a row "repeated" are copies of
fewer ones, as many as a quarter of the first block of ResNet-50 has, and their D must be that of
the few.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import lightning_nc
from lightning_nc.functional import separation_fuzziness
from lightning_nc.functional.separation import fuzziness_of
from lightning_nc.measures.equi_separation import SeparationMeasure
from lightning_nc.measures.last_layer import LastLayer
from lightning_nc.measures.neural_collapse import CollapseMeasure
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass

PARAMETERS = 2**24  # of the linear layer, at most
BATCH_ELEMENTS = 2**23
LARGE_MB = 20  # beside smaller arrays, the batch and the libraries are what takes memory
LAST_LAYER = 4096  # features up to which neural collapse is measured
MOST_FOR_SCATTER = 2048  # features for which a d x d pseudo-inverse takes seconds


class Size(NamedTuple):
    """What is measured.

    Attributes:
        classes: Number of classes K.
        features: Number of features d.
        samples: Number of samples N.
        head: Whether the network has a head.
        copies: How often each of d / copies features is repeated.
    """

    classes: int
    features: int
    samples: int
    head: bool = False
    copies: int = 1

    @property
    def batch(self):
        return max(16, min(1024, BATCH_ELEMENTS // self.features))


SIZES = [
    Size(10, 512, 20_000),
    Size(10, 65_536, 1_000),
    Size(10, 1_000_000, 100),
    Size(100, 512, 20_000),
    Size(100, 65_536, 1_000),
    Size(100, 1_000_000, 200),
    Size(1_000, 512, 20_000),
    Size(1_000, 512, 20_000, head=True),
    Size(1_000, 200_704, 2_000, copies=98),
    Size(10_000, 512, 20_000),
    Size(10_000, 512, 20_000, head=True),
    Size(10_000, 2_048, 20_000),
    Size(50_257, 256, 100_514),
    Size(50_257, 256, 100_514, head=True),
]


class Tokens(Dataset):
    """Pairs of tokens, of which the first is the class; read as whole batches."""

    def __init__(self, classes, samples):
        self.targets = torch.arange(samples) % classes
        random = torch.Generator().manual_seed(1)
        self.others = torch.randint(classes, (samples,), generator=random)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return torch.stack([self.targets[index], self.others[index]]), self.targets[index]

    def __getitems__(self, indices):
        labels = self.targets[indices]
        return torch.stack([labels, self.others[indices]], 1), labels


class Repeated(nn.Module):
    """Each feature as often as asked."""

    def __init__(self, copies):
        super().__init__()
        self.copies = copies

    def forward(self, h):
        return h if self.copies == 1 else h.repeat(1, self.copies)


class StandIn(nn.Module):
    """A network that is fast for the number of its features."""

    def __init__(self, size):
        super().__init__()
        own = size.features // size.copies
        width = min(own, PARAMETERS // own)
        self.embedding = nn.Embedding(size.classes, width)
        map_ = nn.Linear(width, own), nn.ReLU(inplace=True), Repeated(size.copies)
        self.hidden = nn.Sequential(*map_)
        self.head = nn.Linear(size.features, size.classes) if size.head else nn.Identity()

    def forward(self, tokens):
        first, second = self.embedding(tokens).unbind(1)
        return self.head(self.hidden(first + 0.5 * second))


def peak_mb():
    """The peak of this process alone: `ru_maxrss` begins with that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def seconds(work):
    started = time.process_time()
    work()
    return time.process_time() - started


@torch.no_grad()
def read(model, loader):
    for inputs, _ in loader:
        model(inputs)


def measure(model, loader, features, head=False):
    """Measure as callbacks do, without what they keep for figures."""
    probe = lightning_nc.Probe(loader, "p", samples_per_class=None, cache_mb=0, memory_mb=2**14)
    law, collapse = SeparationMeasure(["hidden"]), CollapseMeasure(None if head else False)
    is_last = features <= LAST_LAYER
    request = [(collapse if is_last else law).request()]
    (found,) = GeometryPass(plain_runner(model), lambda: loader, probe, request, Processes()).run()
    layer = found.classifier.features if is_last else found.layers["hidden"]
    values = collapse.values_of(LastLayer(found.classifier)) if is_last else {}
    values["D"] = fuzziness_of(layer)
    assert all(0 <= value < float("inf") for value in values.values()), values
    return float(values["D"])


@torch.no_grad()
def require_copies_change_nothing(model, loader, D):
    """Compare D with that of the features of which there are copies."""
    model.hidden[-1].copies = 1
    parts = [(model(inputs), labels) for inputs, labels in loader]
    few = separation_fuzziness(*(torch.cat(each) for each in zip(*parts, strict=True)))
    assert abs(D / float(few) - 1) < 1e-7, (D, few)


def other_routes(model, loader, size):
    """Seconds of the product with class members, and of the d x d route, for all samples."""
    inputs, labels = next(iter(loader))
    with torch.no_grad():
        h = model.hidden(model.embedding(inputs).sum(1)).double()
    batches = len(loader)
    members = nn.functional.one_hot(labels, size.classes).double()
    by_members = batches * seconds(lambda: members.mT @ h)
    if size.features > MOST_FOR_SCATTER:
        return by_members, None
    scatter = torch.eye(size.features).double()
    by_scatter = batches * seconds(lambda: scatter.addmm_(h.mT, h))
    return by_members, by_scatter + seconds(lambda: torch.linalg.pinv(scatter, hermitian=True))


def made(size):
    """A network and a loader of a size."""
    loader = DataLoader(
        Tokens(size.classes, size.samples), size.batch, collate_fn=lambda batch: batch
    )
    return StandIn(size).eval(), loader


def row(size):
    """The numbers of one size."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    measure(*made(Size(3, 8, 30)), 8)  # what the first measurement imports
    model, loader = made(size)
    read(model, loader)
    twice = seconds(lambda: [read(model, loader) for _ in range(2)])
    before = peak_mb()
    started = time.process_time()
    D = measure(model, loader, size.features, size.head)
    taken = time.process_time() - started
    peak, array = peak_mb() - before, 8 * size.classes * size.features / 2**20
    by_members, by_scatter = other_routes(model, loader, size)
    if size.copies > 1:
        require_copies_change_nothing(model, loader, D)
    return {
        "K": size.classes,
        "d": size.features,
        "N": size.samples,
        "beside": "head" if size.head else "repeated" if size.copies > 1 else "",
        "us per sample": 1e6 * taken / size.samples,
        "by reading twice": taken / twice,
        "peak, MB": peak,
        "peak, K x d arrays": peak / array if array >= LARGE_MB else None,
        "K x N product, by reading twice": by_members / twice,
        "d x d route, by reading twice": None if by_scatter is None else by_scatter / twice,
    }


def in_a_process(size):
    command = [sys.executable, "-W", "ignore", "-m", __spec__.name, "--row", json.dumps(size)]
    # what is freed goes back at once: the peak is then that of our tensors, not of the allocator
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr)
    return json.loads(run.stdout)


def shown(value):
    return "" if value is None else f"{value:,.3g}" if isinstance(value, float) else str(value)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--classes", type=int, help="measure one size alone")
    options.add_argument("--features", type=int, default=768)
    options.add_argument("--samples", type=int, default=1_000_000)
    options.add_argument("--head", action="store_true", help="with a head, for NC4")
    options.add_argument("--row", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.row:
        print(json.dumps(row(Size(*json.loads(chosen.row)))))
        return
    sizes = SIZES
    if chosen.classes:
        sizes = [Size(chosen.classes, chosen.features, chosen.samples, chosen.head)]
    print(f"1 thread, torch {torch.__version__}\n")
    for number, size in enumerate(sizes):
        numbers = in_a_process(size)
        if number == 0:
            print(f"| {' | '.join(numbers)} |\n|{'---|' * len(numbers)}")
        print(f"| {' | '.join(map(shown, numbers.values()))} |", flush=True)


if __name__ == "__main__":
    main()
