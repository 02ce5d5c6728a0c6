"""Count how often the host waits for the device, by place in the code."""

import sys
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch

import lightning_nc

SAID = "called a synchronizing CUDA operation"


@contextmanager
def told_of_syncs():
    """Make torch warn at each operation that waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def places(work, root=Path(lightning_nc.__file__).parent, told=told_of_syncs):
    """Count how often work waits, by the innermost running line of a package's files."""
    counts = Counter()

    def note(message, *_args, **_options):
        if SAID in str(message):
            counts[_innermost(root)] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        with told():
            work()
    return counts


def per_batch(few, many, batches):
    """Waits per batch: the difference of two runs, of which one has more batches."""
    differences = {place: (many[place] - few[place]) / batches for place in {*few, *many}}
    return {place: n for place, n in sorted(differences.items(), key=lambda p: -p[1]) if n > 0}


def beside(counts, each, batches):
    """Waits that do not belong to a batch."""
    differences = {place: n - batches * each.get(place, 0) for place, n in counts.items()}
    return {place: n for place, n in sorted(differences.items(), key=lambda p: -p[1]) if n > 0}


def _innermost(root):
    frame = sys._getframe(2)  # past `note`
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(root):
            return f"{path.relative_to(root).as_posix()}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside"
