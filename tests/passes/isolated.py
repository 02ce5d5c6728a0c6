"""Requests that cannot be met, beside others that can, on one process or on several."""

import torch
import torch.distributed as dist
from torch import nn

from lightning_nc import Probe
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.gradient_pass import GradientPass
from lightning_nc.passes.request import KernelRequest, Request
from lightning_nc.passes.statistics import Statistic
from tests import nets
from tests.callbacks.faults import noting_collectives
from tests.callbacks.processes_of_lightning import network

SIBLINGS = [Request(layers="blocks", classifier=True), Request(classifier=True, needs_head=True)]
DATA = nets.vectors((12, 9, 9))
ON = {"no process": (), "process 0": (0,), "process 1": (1,), "both": (0, 1)}


class Sometimes(nn.Module):
    """Whose last part runs on the first of its batches only."""

    def __init__(self, batches=99):
        super().__init__()
        self.net, self.rare, self.batches, self.calls = network(), nn.Identity(), batches, 0

    def forward(self, x):
        self.calls += 1
        if self.calls <= self.batches:
            self.rare(x)
        return self.net(x)


class Odd(Statistic):
    """A statistic that fails at a place."""

    name = "odd"

    def __init__(self, place, second_sweep=False):
        self.place, self.second_sweep = place, second_sweep

    def shape(self, K, d):
        if self.place == "shape":
            raise ZeroDivisionError("no shape")
        return (10**6 if self.place == "size" else 1,)

    def of(self, batch):
        if self.place == "value":
            raise ZeroDivisionError("no value")
        return torch.ones(2 if self.place == "values" else 1)


def pooled(does, at):
    """A request for a layer with a pool that does something odd from one of its calls on."""
    calls = [0]

    def pool(h):
        calls[0] += 1
        return does(h) if calls[0] >= at else h

    return Request(layers={"net.2": pool})


def fail(*_):
    raise IndexError("no token")


def summed(place, second_sweep=False):
    """A request for a statistic at the very layers that others ask for."""
    statistics = (Odd(place, second_sweep),)
    return Request(layers="blocks", classifier=True, statistics=statistics)


def tallied(tally):
    return Request(layers=["net.4"], tally=tally)


# the request, and what is said of it; these fail in planning, on all processes
PLANNED = {
    "a layer that nothing has": (lambda: Request(layers=["nope"]), "Unknown layer 'nope'"),
    "a layer that never runs": (lambda: Request(layers=["idle"]), "idle"),
    "a head that nothing has": (
        lambda: Request(classifier=True, head="nope"),
        "The head 'nope' has no weight matrix",
    ),
    "a layer over the budget": (
        lambda: Request(layers={"net.2": lambda h: h.repeat(1, 10**4)}),
        "Probe(memory_mb=...)",
    ),
    "a sum over the budget": (
        lambda: Request(layers=["net.4"], classifier=True, statistics=(Odd("size"),)),
        "Probe(memory_mb=...)",
    ),
    "a sum without a shape": (
        lambda: Request(layers=["net.4"], classifier=True, statistics=(Odd("shape"),)),
        "no shape",
    ),
}
# these fail in planning on some processes: the request, and what is said
LOOKED_AT = {
    "a pool at the first look": (lambda: pooled(fail, 1), "no token"),
}
# these fail on some processes in a sweep: the request, what is said, and the sweep
SWEPT = {
    "a pool": (lambda: pooled(fail, 2), "no token", 1),
    "a pool that gives another width": (
        lambda: pooled(lambda h: h[:, :5], 2),
        "'net.2' has 5 features per sample",
        1,
    ),
    "features that are not finite": (
        lambda: pooled(lambda h: h * torch.nan, 2),
        "Features are not finite (NaN or infinite) at 'net.2'",
        1,
    ),
    "a sum that fails": (lambda: summed("value"), "no value", 1),
    "a sum of another shape": (lambda: summed("values"), "returned shape (2,)", 1),
    "a sum that fails in the second sweep": (lambda: summed("value", True), "no value", 2),
    "a tally that fails": (lambda: tallied(fail), "no token", 1),
    "a tally of another shape": (
        lambda: tallied(lambda n: torch.zeros(n + 1)),
        "tally(3) returned shape (4,)",
        1,
    ),
    "a tally that is one number": (
        lambda: tallied(lambda _: torch.zeros(1)),
        "tally(3) returned shape (1,)",
        1,
    ),
}
# in the second of two sweeps, which read three batches on each of two processes, five on one
SWEPT_AGAIN = {
    "a pool in the second sweep": (lambda at: pooled(fail, at), "no token", 2),
}


def whole(bad):
    """A request that can be met, for the same as one that cannot."""
    layers = {"net.2": lambda h: h} if isinstance(bad.layers, dict) else bad.layers
    statistics = tuple(Odd("", each.second_sweep) for each in bad.statistics)
    return bad._replace(layers=layers, tally=bad.tally and torch.zeros, statistics=statistics)


class Idle(nn.Module):
    """A network with a module that never runs."""

    def __init__(self):
        super().__init__()
        self.net, self.idle = network(), nn.Linear(3, 3)

    def forward(self, x):
        return self.net(x)


class Sparse(Idle):
    """A network whose outputs cannot be compared with W h + b, from the second call on."""

    def __init__(self, sparse=True):
        super().__init__()
        self.sparse, self.calls = sparse, 0

    def forward(self, x):
        self.calls += 1
        logits = super().forward(x)
        return logits.to_sparse() if self.sparse and self.calls > 1 else logits


def ask(requests, net=None, rank=0, world=1, shards=False, plan=None, kind=GeometryPass, **probe):
    """The pass over some requests, with its answers, and what it has sent."""
    net = Idle() if net is None else net
    runner, processes = plain_runner(net), Processes(rank, world)
    if shards:  # as a sharded network does, this one communicates whenever it runs
        forward = runner.call

        def call(inputs):
            processes._replace(requests=len(requests)).in_step()
            present = torch.ones(1)
            dist.all_reduce(present)
            assert float(present) == world
            return forward(inputs)

        runner = runner._replace(call=call)
    options = {"batch_size": 6, "memory_mb": 1} | probe
    source = options.pop("source", DATA)
    probe = Probe(source, "own", **options)
    one = kind(runner, lambda: source, probe, requests, processes, plan)
    sent = []
    with noting_collectives(sent):
        answers = one.run()
    return one, answers, sent


def values(answer):
    """All numbers of an answer, or the text of the error in its place."""
    if isinstance(answer, Exception):
        return f"{type(answer).__name__}: {answer}"
    found = {
        (name, part): getattr(geometry, part)
        for name, geometry in answer.layers.items()
        for part in ("means", "fuzziness", "collapse", "squares")
    }
    if answer.classifier is not None:
        last = answer.classifier
        found |= {"W": last.weight, "mismatch": last.mismatch, "right": last.class_accuracy}
        found["last"] = last.features.squares
    return found


def measured(make, where, rank, world, **options):
    """What a request that fails on some processes is told, beside siblings, and what is sent."""
    bad = make() if rank in where else whole(make())
    first, second = SIBLINGS
    _, answers, sent = ask([first, bad, second], None, rank, world, **options)
    return [values(answer) for answer in answers], sent


class BrokenHere(nets.Blobs):
    """A dataset that cannot be read on some processes."""

    def __init__(self, broken):
        super().__init__(augment=False)
        self.broken = broken

    def __getitem__(self, index):
        if self.broken:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


def compared(where, rank, world):
    """What comparing gradients says of data that some processes can never read."""
    wanted = Request(kernel=KernelRequest(2, 3))
    data = BrokenHere(rank in where)
    try:
        _, answers, _ = ask([wanted], None, rank, world, kind=GradientPass, source=data)
    except Exception as error:
        answers = [error]
    return values(answers[0])


def decided(where, rank, world):
    """What is told if the network's outputs cannot be compared on some processes."""
    requests = [Request(layers="blocks"), SIBLINGS[1]]
    _, answers, sent = ask(requests, Sparse(rank in where), rank, world)
    return [values(answer) for answer in answers], sent


def run_all(rank, world):
    """What all processes see of all cases."""
    found = {}
    for name, (make, _) in PLANNED.items():
        found[name] = measured(make, (0, 1), rank, world)
    for name, (make, *_) in (LOOKED_AT | SWEPT).items():
        for on, where in ON.items():
            found[name, on] = measured(make, where, rank, world)
    for on, where in ON.items():
        for name, (make, *_) in SWEPT_AGAIN.items():
            # one look, then three batches in the first sweep
            again = lambda make=make: make(1 + 3 + 2)  # noqa: E731
            found[name, on] = measured(again, where, rank, world, cache_mb=0)
        for name in ("a pool at the first look", "a pool"):
            make = (LOOKED_AT | SWEPT)[name][0]
            found[name, on, "sharded"] = measured(make, where, rank, world, shards=True)
        found["decisions", on] = decided(where, rank, world)
        found["gradients", on] = compared(where, rank, world)
    return found
