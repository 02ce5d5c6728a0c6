"""Seconds and memory of work on the device."""

import statistics
import time

import torch

from tests.gpu.device import finish, on_cuda

MB = 2**20


def seconds(work, repeats=1):
    """Median seconds over some runs, each from an idle device to an idle device."""
    taken = []
    for _ in range(repeats):
        finish()
        started = time.perf_counter()
        work()
        finish()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def seconds_and_peak(work, repeats=1):
    """Seconds, and the peak memory in MB beyond that in use before; None on a CPU."""
    if not on_cuda():
        return seconds(work, repeats), None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    taken = seconds(work, repeats)
    return taken, (torch.cuda.max_memory_allocated() - before) / MB
