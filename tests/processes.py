"""Run a function in several real processes of one gloo group, with a deadline."""

import pickle
import queue
import tempfile
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist


def run_processes(function, world_size, *args, timeout=600):
    """Call ``function(rank, world_size, *args)`` in each process; return the results by rank.

    The function must be importable (defined at the top of a module) and its result picklable. If a
    child raises, this fails with its traceback; it also fails at the deadline. No process outlives
    the call.
    """
    context = torch.multiprocessing.get_context("forkserver")
    # imported once, instead of by each child
    context.set_forkserver_preload(["lightning_nc", "tests.nets"])
    results = context.Queue()
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = (Path(folder) / "rendezvous").as_uri()
        children = [
            context.Process(
                target=_child,
                args=(function, rank, world_size, rendezvous, timeout, results, args),
                daemon=True,
            )
            for rank in range(world_size)
        ]
        try:
            for child in children:
                child.start()
            return _collect(results, children, deadline, timeout)
        finally:
            for child in children:
                if child.pid is not None:
                    child.join(timeout=1)
                    child.kill()
                    child.join()


def _collect(results, children, deadline, timeout):
    by_rank = {}
    while len(by_rank) < len(children):
        try:
            rank, result, error = results.get(timeout=0.2)
        except queue.Empty:
            dead = [
                rank
                for rank, child in enumerate(children)
                if rank not in by_rank and child.exitcode not in (None, 0)
            ]
            if dead:
                raise AssertionError(
                    f"Process {dead[0]} died with exit code {children[dead[0]].exitcode}."
                ) from None
            if time.monotonic() > deadline:
                silent = sorted(set(range(len(children))) - set(by_rank))
                raise AssertionError(
                    f"Processes {silent} gave no result within {timeout} s."
                ) from None
            continue
        if error is not None:
            raise AssertionError(f"Process {rank} failed:\n{error}")
        by_rank[rank] = pickle.loads(result)
    return [by_rank[rank] for rank in range(len(children))]


def _child(function, rank, world_size, rendezvous, timeout, results, args):
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=rendezvous,
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout),
        )
        result = function(rank, world_size, *args)
        # plain pickle copies tensors; the queue's own would share memory with a process that ends
        results.put((rank, pickle.dumps(result), None))
        dist.barrier()  # no process leaves while others still communicate
        dist.destroy_process_group()
    except BaseException:
        results.put((rank, None, traceback.format_exc()))
