"""A long run with all families: what grows with the number of measurements.

Prints the memory, open files, threads and objects of the process, and the time of a measurement
and of a checkpoint, after 100 measurements of each callback and at the end. Run with
``python -m tests.benchmarks.soak [MEASUREMENTS]``.
"""

import gc
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from pytorch_lightning import Callback

from lightning_nc import EquiSeparation, LocalElasticity, MinorityCollapse, NeuralCollapse
from tests import nets

COUNTS = (20, 15, 6, 6)
LAST = 40  # measurements of which a time is the median


class State(NamedTuple):
    """What a process holds, and what a measurement costs.

    Attributes:
        measurements: Measurements of each callback so far.
        megabytes: Resident memory.
        files: Open files.
        threads: Threads.
        objects: Objects that the garbage collector knows.
        seconds: Median duration of the last measurements.
        checkpoint: Seconds to make and save the state of all callbacks.
    """

    measurements: int
    megabytes: float
    files: int
    threads: int
    objects: int
    seconds: float
    checkpoint: float


class Watch(Callback):
    """Writes down the state of the process after some numbers of measurements."""

    def __init__(self, used, moments):
        self.used, self.moments, self.states = used, moments, []

    def on_train_epoch_end(self, trainer, pl_module):
        done = len(self.used[0].history)
        if done in self.moments:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            series = self.used[0].history.series("seconds")
            self.states.append(
                State(
                    done,
                    pages * 4096 / 2**20,
                    len(list(Path("/proc/self/fd").iterdir())),
                    threading.active_count(),
                    len(gc.get_objects()),
                    median(series[-LAST:]),
                    median(self.checkpoint() for _ in range(9)),
                )
            )

    def checkpoint(self):
        started = time.perf_counter()
        states = [callback.state_dict() for callback in self.used]
        with tempfile.TemporaryFile() as file:
            torch.save(states, file)
        return time.perf_counter() - started


def soak(root, moments):
    """Train until the last of some numbers of measurements, and return the state at each."""
    used = [
        EquiSeparation(figures=False),
        NeuralCollapse(figures=False),
        MinorityCollapse(figures=False),
        LocalElasticity(samples_per_class=2, figures=False),
    ]
    watch = Watch(used, moments)
    nets.fit(
        root,
        [*used, watch],
        nets.vectors(COUNTS),
        nets.mlp(K=len(COUNTS)),
        max_epochs=moments[-1],
        limit_val_batches=0,
    )
    assert [callback.failures for callback in used] == [0, 0, 0, 0]
    return watch.states


def main():
    """Print a row per moment."""
    last = int(sys.argv[1]) if sys.argv[1:] else 5000
    names = ("measurements", "MB", "files", "threads", "objects")
    print("|", " | ".join((*names, "ms per measurement", "ms per checkpoint")), "|")
    print("|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as root:
        for each in soak(Path(root), [100, last // 2, last]):
            times = f"{1000 * each.seconds:.1f} | {1000 * each.checkpoint:.1f}"
            held = f"{each.megabytes:.0f} | {each.files} | {each.threads} | {each.objects}"
            print(f"| {each.measurements} | {held} | {times} |")


if __name__ == "__main__":
    main()
