"""How long it takes to read a batch, and to run the network on it."""

import time
from typing import NamedTuple

import torch

from lightning_nc.network.runner import Runner
from lightning_nc.passes.sweeps import Reading, unpacked_batches

_TIMES = 2  # the first time may include what is done only once


class Pace(NamedTuple):
    """Seconds per item, which is a sample, or a sequence or image with labels of positions.

    Attributes:
        reading: To read it and move it to the device, in this process.
        forward: To run the network on it.
    """

    reading: float
    forward: float


def pace_of(runner: Runner, reading: Reading) -> Pace:
    """Time the first batch of a reading, with the network under guard."""
    one = reading._replace(batches=reading.batches[:1])
    paces = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        planned, inputs, _ = next(unpacked_batches(runner, one))
        _wait_for(runner.device)
        read = time.perf_counter()
        with runner.precision():
            runner.call(inputs)
        _wait_for(runner.device)
        times = read - started, time.perf_counter() - read
        paces.append(Pace(*(seconds / len(planned.indices) for seconds in times)))
    return Pace(*map(min, zip(*paces, strict=True)))


def _wait_for(device: torch.device) -> None:
    if device.type in ("cuda", "mps", "xpu"):
        getattr(torch, device.type).synchronize()
