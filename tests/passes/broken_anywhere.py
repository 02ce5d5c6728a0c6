"""A pass of several processes, one of which fails in one function after the other."""

from functools import partial

import torch.distributed as dist

from lightning_nc import Probe
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.gradient_pass import GradientPass
from lightning_nc.passes.request import KernelRequest, Request
from tests.passes import isolated
from tests.test_interrupted import Interrupted, profiled, starts

KERNEL = [Request(kernel=KernelRequest(2, 3))]
PASSES = {
    "features kept": {},
    "in groups": {"memory_mb": 0.0013, "cache_mb": 0},
    "gradients": {"requests": KERNEL, "kind": GradientPass},
}
# a process that fails in the midst of a vote or a reduction, or on its way from one to the next,
# cannot tell the others; these functions do nothing else
COMMUNICATES = ("passes/agreement.py", "passes/sums.py", "passes/one_network.py")
BETWEEN = ("run", "_answers", "_agree", "_numbers", "all_reduce", "needed", "sums_of", "_answer")
BETWEEN += ("with_geometry", "geometry_at", "_alive", "_measure_group", "read_totals")
BETWEEN += ("read_heads", "answer_to", "_memory_mb", "has_own_memory")


def place_of(code):
    return code.co_filename, code.co_name, code.co_firstlineno


def break_everywhere(rank, world, name):
    """Let each function fail on one process; return which did and the errors seen, by function."""
    measure = partial(pass_of, rank, world, **PASSES[name])
    measure().run()  # what the first one imports
    own = [place_of(code) for code, number in starts(measure().run) if number == 1]
    shared = [own]
    dist.broadcast_object_list(shared)
    seen = {}
    for turn, place in enumerate(shared[0]):
        if place[0].endswith(COMMUNICATES) or place[1] in BETWEEN:
            continue
        failing = turn % world
        one = measure()
        found = broken(one.run, place) if rank == failing else attempt(one.run)
        seen[place] = failing, found
        dist.barrier()
    return seen


def pass_of(rank, world, requests=isolated.SIBLINGS, kind=GeometryPass, **options):
    """A pass on this process; a new one each time, for what is kept would not run again."""
    runner, processes = plain_runner(isolated.Idle()), Processes(rank, world)
    probe = Probe(isolated.DATA, "own", batch_size=6, **options)
    return kind(runner, lambda: isolated.DATA, probe, requests, processes)


def broken(measure, place):
    """The outcome on the process on which the first call of a function fails."""
    left = [1]

    def fail(code):
        if left and place_of(code) == place:
            left.clear()
            raise Interrupted("a fault")

    with profiled(fail):
        return attempt(measure)


def attempt(measure):
    """The kinds of all errors of a measurement; none if it succeeds."""
    try:
        return [type(each).__name__ for each in measure() if isinstance(each, Exception)]
    except Exception as error:
        return [type(error).__name__]
