"""Time a tangent kernel of 50 samples against one forward and backward pass of them.

    python -m tests.benchmarks.gradient_kernel [--quick] [--repeats 3] [--threads 1]
        [--routes gradient_kernel vmap ...]

The routes run in turn in one process, on the same batch: `gradient_kernel` of all ten outputs;
`torch.func.vmap` over samples of the gradient of one output, times ten, with the Gram matrix of
all m x P gradients at the end; `relative_similarity` in the limit of small rates; and the same by
real steps for a few of the m samples, scaled (each step takes the gradient of one sample, an
update, and a forward pass of the batch). The output shows medians of the ratios to the forward and
backward pass of the same repeat. Seconds are those of this process on the processor, divided by its
threads, so that other programs count less.

Memory is the peak resident size of a fresh process that runs one route once, minus its peak before
the run, with network and batch in place. The error of the float32 kernel of all samples is taken
against float64 gradients of a few of them, computed sample by sample.
"""

import argparse
import copy
import pathlib
import statistics
import subprocess
import sys
import time

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from lightning_nc.functional import gradient_kernel, relative_similarity
from tests.benchmarks.measurement_cost import Residual

SAMPLES, OUTPUTS, STEPS, EXACT, CHUNK = 50, 10, 3, 3, 10


def conv_net():
    """Five convolutions and two linear layers, 2 M parameters, for images of 32 x 32."""
    layers = []
    for before, after, pool in (
        (3, 64, False),
        (64, 128, True),
        (128, 256, True),
        (256, 256, False),
        (256, 384, True),
    ):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)] if pool else []
    top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(384, 384), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *top, nn.Linear(384, OUTPUTS))


def resnet18():
    """ResNet-18 with the stem for small images, 11 M parameters."""
    stages = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [
        block
        for before, after, stride in stages
        for block in (Residual(before, after, stride), Residual(after, after, 1))
    ]
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    top = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, OUTPUTS)]
    return nn.Sequential(*stem, *blocks, *top)


def small():
    """A small network, to check quickly that everything runs."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(8)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, OUTPUTS))


NETWORKS = {each.__name__: each for each in (conv_net, resnet18, small)}


def forward_backward(model, x, y):
    nn.functional.cross_entropy(model(x), y).backward()
    model.zero_grad()


def hooked(model, x, _):
    return gradient_kernel(model, x)


def similarity(model, x, y):
    return relative_similarity(model, x, y)


def by_vmap(model, x, _, outputs=1):
    """The kernel of the first outputs."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def output(p, sample, c):
        return functional_call(model, p, (sample[None],))[0, c]

    kernel = torch.zeros(len(x), len(x), dtype=torch.float64)
    for c in range(outputs):
        of_samples = vmap(grad(output), in_dims=(None, 0, None), chunk_size=CHUNK)(parameters, x, c)
        kernel += sum((g.flatten(1) @ g.flatten(1).T).double() for g in of_samples.values())
    return kernel


def by_steps(model, x, y, steps=STEPS):
    """Moves of all outputs by a step on each of the first samples."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        f = model(x)
    moves = []
    for i in range(steps):
        nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 1e-3 * p.grad
            moves.append((model(x) - f).norm(dim=1))
            for name, p in model.named_parameters():
                p.copy_(before[name])
        model.zero_grad()
    return torch.stack(moves)


# routes, and the factor from their seconds to those of the whole
BASE = "forward + backward"
ROUTES = {
    BASE: (forward_backward, 1),
    "gradient_kernel": (hooked, 1),
    "vmap": (by_vmap, OUTPUTS),
    "relative_similarity": (similarity, 1),
    "steps": (by_steps, SAMPLES / STEPS),
}


def setup(name):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    return model, torch.randn(SAMPLES, 3, 32, 32), torch.arange(SAMPLES) % OUTPUTS


def times(name, repeats, routes):
    """Seconds of each route in each repeat, after a warm-up of the network, and the kernel."""
    model, x, y = setup(name)
    forward_backward(model, x, y)
    chosen = {each: ROUTES[each] for each in ROUTES if each in (BASE, *routes)}
    taken, kernel = {route: [] for route in chosen}, None
    for _ in range(repeats):
        for route, (run, factor) in chosen.items():
            started = time.process_time()
            result = run(model, x, y)
            seconds = (time.process_time() - started) / torch.get_num_threads()
            taken[route].append(factor * seconds)
            kernel = result if run is hooked else kernel
    return taken, kernel


def peak():
    # not ru_maxrss, which starts at the size of the parent process
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def memory(name, route):
    """The memory of a route in a process of its own, in megabytes."""
    command = [sys.executable, "-m", "tests.benchmarks.gradient_kernel", "--memory", name, route]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def error(name, kernel):
    """Largest error of an entry, relative to the largest entry."""
    model, x, _ = setup(name)
    model, x = copy.deepcopy(model).double(), x[:EXACT].double()
    exact = torch.zeros(EXACT, EXACT, dtype=torch.float64)
    for c in range(OUTPUTS):
        of_samples = []
        for sample in x:
            g = torch.autograd.grad(model(sample[None])[0, c], list(model.parameters()))
            of_samples.append(torch.cat([each.flatten() for each in g]))
        gradients = torch.stack(of_samples)
        exact += gradients @ gradients.T
    return ((kernel[:EXACT, :EXACT] - exact).abs().max() / exact.abs().max()).item()


def report(name, repeats, routes):
    taken, kernel = times(name, repeats, routes)
    model, _, _ = setup(name)
    base = taken[BASE]
    size = sum(map(torch.numel, model.parameters())) / 1e6
    print(f"\n{name}, {size:.1f} M parameters; forward + backward {statistics.median(base):.2f} s")
    if kernel is not None:
        print(f"error of the kernel in float32: {error(name, kernel):.1e}\n")
    print("| route | per direction | whole | peak memory, MB |")
    print("|---|---|---|---|", flush=True)
    for route, seconds in taken.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, base, strict=True))
        directions = OUTPUTS if route in ("gradient_kernel", "vmap", "relative_similarity") else 1
        per = f"{ratio / directions:.2f}" if directions > 1 else "-"
        print(f"| {route} | {per} | {ratio:.1f} | {memory(name, route):.0f} |", flush=True)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="a small network, once")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--routes", nargs="+", choices=ROUTES, default=list(ROUTES))
    options.add_argument(
        "--memory", nargs=2, metavar=("NETWORK", "ROUTE"), help="print the memory of one route"
    )
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.memory:
        name, route = chosen.memory
        arguments = setup(name)
        before = peak()
        ROUTES[route][0](*arguments)
        print(peak() - before)
        return
    print(f"{SAMPLES} samples, {OUTPUTS} outputs, {torch.get_num_threads()} threads, as ratios")
    for name in ["small"] if chosen.quick else ["conv_net", "resnet18"]:
        report(name, 1 if chosen.quick else chosen.repeats, chosen.routes)


if __name__ == "__main__":
    main()
