"""What can go wrong in a measurement, and runs in which it does on some processes."""

import functools
import inspect
import itertools
import pickle
import tempfile
import warnings
from collections import UserDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers import Logger
from torch.utils.data import DataLoader, default_collate

from lightning_nc import LocalElasticity, Probe
from lightning_nc.callbacks import measure_callback
from lightning_nc.passes.agreement import Processes
from tests import nets
from tests.callbacks.processes_of_lightning import COLLECTIVES, join, network

SENT = {torch.int64: "vote", torch.float64: "sums"}  # by what is reduced; bytes besides
TEXT = 2048  # bytes of a cause


class Fault(NamedTuple):
    """What happens to a value at a place, and what is said of it.

    It happens in one measurement, or without an epoch in all: in the second batch of a sweep, or
    without a sweep at the first call. In loggers, figures and events it happens at every call.
    """

    place: str
    does: Callable[[Any], Any]
    says: str
    sweep: int | None = None
    epoch: int | None = 1
    logger: str | None = None
    kinds: Sequence[type] = tuple(nets.GEOMETRY)


def fails(place, error, sweep=None, says=None, **options):
    def does(value):
        raise type(error)(*error.args)  # a new one: it will hold on to its frames

    said = f"{type(error).__name__}: {error}" if says is None else says
    return Fault(place, does, said, sweep, **options)


def differs(**options):
    says = "processes read different samples or networks"
    return Fault("source", lambda _: Samples(**options), says)


class Unspeakable(Exception):
    def __str__(self):
        raise TypeError("this cannot be said")


def to_a_full_disk(drawings):
    def pixels():
        with open("/dev/full", "wb") as full:
            full.write(b"0")

    def draw(drawing):
        figure = drawing()
        figure.canvas.buffer_rgba = pixels
        return figure

    return {tag: functools.partial(draw, drawing) for tag, drawing in drawings.items()}


GONE, ODD, SHORT = OSError("the disk is gone"), ValueError("odd"), IndexError("no token")
MUCH = OSError("é" * 5000)  # more than processes tell each other, cut within a character
NO_TEXT = OSError("caf\udce9.png")  # as a file name that is not UTF-8 arrives in Python
NO_SERVER, NO_FONT = OSError("no server"), ImportError("no font")
FULL = "log a figure to Book: OSError(28, 'No space left on device')"

# a measurement in which this happens on one process is skipped on all
FAULTS = {
    "a sample": fails("sample", GONE, 1),
    "a sample at the first look": fails("sample", GONE, epoch=0),
    "an error that says much": fails("sample", MUCH, 1, "OSError: " + "é" * 900),
    "an error that says what is no text": fails("sample", NO_TEXT, 1, "OSError: caf"),
    "an error that cannot say": fails("sample", Unspeakable(), 1, "Unspeakable"),
    "a sample that is not finite": Fault(
        "sample", lambda s: (s[0] * torch.nan, s[1]), "ValueError: Features are not finite", 1
    ),
    "a label that is not the declared one": Fault(
        "sample", lambda s: (s[0], (s[1] + 1) % 3), "ValueError: Sample ", 1
    ),
    "no memory for a batch": fails("collate", MemoryError("no room"), 1),
    "a batch without labels": fails("unpack", KeyError("labels"), 1),
    "the network": fails("forward", ODD, 1),
    "the network at the first look": fails("forward", ODD, epoch=0),
    "the network in the second sweep": fails("forward", ODD, 2),
    "no memory on the device": fails("forward", torch.OutOfMemoryError("no room"), 1),
    "a source": fails("source", OSError("not mounted")),
}

# of a layer that one callback alone names, on some processes or on all
POOLED = {
    "a pool": fails("pool", SHORT, 1),
    "a pool in the second sweep": fails("pool", SHORT, 2),
    "a pool that gives a number per sample": Fault(
        "pool", lambda h: h[:, 0], "ValueError: 'net.2' has 1 features per sample", 1
    ),
    "a pool that gives another width": Fault(
        "pool", lambda h: h[:, :5], "ValueError: 'net.2' has 5 features per sample", 1
    ),
    "a pool that loses a sample": Fault("pool", lambda h: h[1:], "ValueError: Layer 'net.2'", 1),
}

# the same on all processes, since they have the same sums
EVALUATED = {"what a callback makes of it": fails("evaluate", ZeroDivisionError("a norm"))}

# this is no fault on any process alone
DIFFERENCES = {
    "other labels": differs(shift=1),
    "more samples": differs(counts=(12, 10, 11)),
}

# a measurement in which this happens succeeds; "Could not" comes before what is said
UNLOGGED = {
    "a logger": fails("log", NO_SERVER, says="log to Book: OSError('no server')", logger="Book"),
    "a drawing": fails("draw", NO_FONT, says="draw figures: ImportError('no font')", logger="Book"),
    "a figure on a full disk": Fault("draw", to_a_full_disk, FULL, logger="Book"),
    "an event": fails(
        "events", ODD, says="report what has happened: ValueError('odd')", logger="Book"
    ),
} | {
    f"an image to {kind}": fails(
        "image", NO_SERVER, says=f"log a figure to {kind}: OSError('no server')", logger=kind
    )
    for kind in ("TensorBoardLogger", "WandbLogger")
}

# of this nothing is said; it is there on the first process alone, and before any vote
UNSHOWN = {
    "a bar that cannot say if it is shown": fails("bar", GONE, says=""),
    "a bar that cannot say of what it is made": fails("tasks of the bar", GONE, says=""),
}

# the same where gradients are compared, in a pass of its own
COMPARED = (
    *("a sample", "a sample at the first look", "a label that is not the declared one"),
    *("no memory for a batch", "a batch without labels", "the network"),
    *("the network at the first look", "no memory on the device", "a source"),
)
ELASTIC = {
    f"{name}, gradients compared": FAULTS[name]._replace(
        kinds=(LocalElasticity,),
        # of one batch alone
        sweep=None if FAULTS[name].place in ("collate", "unpack") else FAULTS[name].sweep,
    )
    for name in COMPARED
}


def never_the_same(value, seconds=itertools.count(1.5)):  # noqa: B008 - counts all calls
    raise OSError(f"no answer after {next(seconds)} s. Try again")


# all measurements are skipped, or not logged, for a cause whose text changes
LASTING = {
    "a source that never answers": Fault(
        "source", never_the_same, "OSError: no answer after ", epoch=None
    ),
}
UNLOGGED_LASTING = {
    "a logger that never answers": Fault(
        "log", never_the_same, "log to Book: OSError('no answer after ", epoch=None, logger="Book"
    ),
}

ALL = FAULTS | POOLED | EVALUATED | DIFFERENCES | UNLOGGED | UNSHOWN | ELASTIC | LASTING


class Trap:
    """Hands values on, until the fault strikes."""

    def __init__(self, fault=None, world=1):
        self.fault, self.epoch, self.at = fault, -1, 1
        # of a library, since what objects of a user count in a measurement is put back
        self.counted = UserDict(calls=0, struck=0)
        self.compares = fault is not None and LocalElasticity in fault.kinds
        if fault and fault.sweep:
            before = 6 // world * (fault.sweep - 1) + 1  # of this process's batches
            self.at = 1 + before * (5 if fault.place == "sample" else 1)

    def __call__(self, place, value=None):
        fault = self.fault
        if fault is None or place != fault.place or fault.epoch not in (None, self.epoch):
            return value
        self.counted["calls"] += 1
        if self.counted["calls"] != self.at and not self.fault.logger:
            return value
        self.counted["struck"] += 1
        return self.fault.does(value)


class Samples(nets.Blobs):
    def __init__(self, counts=(12, 9, 9), shift=0, trap=None):
        super().__init__(counts, augment=False)
        self.targets, self.trap = (self.targets + shift) % 3, trap or Trap()

    def __getitem__(self, index):
        return self.trap("sample", super().__getitem__(index))


class Network(nets.Classifier):
    def __init__(self, trap):
        super().__init__(network(), freeze=0)
        self.trap = trap

    def forward(self, x):
        in_a_sweep = not torch.is_grad_enabled() or self.trap.compares
        measured = not self.training and in_a_sweep
        return super().forward(self.trap("forward", x) if measured else x)


class Book(Logger):
    """A logger that keeps what it is given."""

    name, version, save_dir = "book", 0, None

    def __init__(self, trap, folder):
        super().__init__()
        self.trap, self.rows, self.save_dir, self.experiment = trap, [], folder, self

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        if any("/" in key for key in metrics):  # ours
            self.trap("log")
        self.rows.append(metrics)

    def add_image(self, *args, **kwargs):
        self.trap("image")

    log_image = add_image


class Bar(ProgressBar):
    """A bar that shows nothing, in the places where others look."""

    def __init__(self, trap):
        super().__init__()
        self.trap = trap

    def disable(self):
        pass

    @property
    def is_enabled(self):
        return self.trap("bar", True)

    @property
    def progress(self):
        return self.trap("tasks of the bar")


def trapped_callbacks(trap, probe, kinds, **options):
    """Callbacks; the first that takes layers has a callable for one of them."""
    layers = {"net.2": lambda h: trap("pool", h), "net.4": torch.clone, "net.6": torch.clone}
    first = next((kind for kind in kinds if "layers" in inspect.signature(kind).parameters), None)
    used = []
    for kind in kinds:
        own = {"layers": layers} if kind is first else {}
        used.append(kind(probe=probe, **options, **own))
        for place in ("evaluate", "draw", "events"):
            nets.through(used[-1], place, functools.partial(trap, place))
    return used


def run(fault, here=True, world=1, on_error="warn", speak=True):
    """Train for two epochs; in one of three measurements there is a fault, if it is to be here.

    Returns:
        What this process has to show afterwards, by what it is.
    """
    trap = Trap(fault if here else None, world)

    def collate(samples):
        return trap("collate", default_collate(samples))

    loader = DataLoader(Samples(trap=trap), collate_fn=collate)
    probe = Probe(
        source=lambda: trap("source", loader),
        name="probe",
        unpack=lambda batch: trap("unpack", batch),
        batch_size=5,
        cache_mb=0 if fault.sweep == 2 else 512,
    )
    used = trapped_callbacks(
        trap, probe, fault.kinds, on_error=on_error, figures=fault.place in ("draw", "image")
    )
    with tempfile.TemporaryDirectory() as folder:
        book = type(fault.logger or "Book", (Book,), {})(trap, folder)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for words in nets.OF_TINY_DATA:
                warnings.filterwarnings("ignore", words)
            module, trainer, seen, raised = train(trap, used, book, world, speak)
    keys = {callback.family: callback.record.prefix + "failures" for callback in used}
    return {
        "raised": raised,
        "names": " and ".join(type(callback).__name__ for callback in used),
        "warned": [str(w.message) for w in told if w.category is RuntimeWarning],
        "failures": {callback.family: callback.failures for callback in used},
        "history": {c.family: [m.epochs_completed for m in c.history] for c in used},
        "monitored": {f: float(trainer.callback_metrics.get(key, -1)) for f, key in keys.items()},
        "logged": {f: [row[key] for row in book.rows if key in row] for f, key in keys.items()},
        "struck": trap.counted["struck"],
        "same weights": nets.same(module.state_dict(), weights_alone(world)),
        "sent": {epoch: sent for epoch, (sent, _, _) in seen.items()},
        "as it was": [as_it_was for _, as_it_was, _ in seen.values()],
        "in step": [in_step for _, _, in_step in seen.values()],
    }


@functools.cache
def weights_alone(world):
    return train(Trap(), [], False, world)[0].state_dict()


def train(trap, used, logger, world, speak=True):
    """Train, and look at each measurement from outside; may speak with other processes after it."""
    seen, raised = {}, None
    measure_together = measure_callback.measure_together

    def watched(trainer, module, due, everything, moment):
        trap.epoch, trap.counted["calls"] = moment.epochs_completed, 0
        sent, before = [], state_of(module)
        try:
            with noting_collectives(sent):
                measure_together(trainer, module, due, everything, moment)
        finally:
            number = torch.tensor(2.0**trainer.global_rank)
            if world > 1 and speak:
                dist.all_reduce(number)
            in_step = float(number) == 2**world - 1
            seen[moment.epochs_completed] = sent, state_of(module) == before, in_step

    module, options = Network(trap), {"num_sanity_val_steps": 0, "logger": logger}
    if trap.fault in UNSHOWN.values():
        used, options["enable_progress_bar"] = [*used, Bar(trap)], True
    if world > 1:
        options |= {"strategy": "ddp", "devices": world}
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(measure_callback, "measure_together", watched),
    ):
        trainer = nets.trainer(folder, used, **options)
        torch.manual_seed(8)
        try:
            trainer.fit(module, DataLoader(nets.vectors(), 5, shuffle=True))
        except Exception as error:
            text = "" if isinstance(error, Unspeakable) else str(error)
            raised = [kind.__name__ for kind in type(error).__mro__], text
    return module, trainer, seen, raised


@contextmanager
def noting_collectives(sent):
    def noting(name, original):
        def call(*args, **kwargs):
            of_bytes = "text" if args[0].shape[-1] == TEXT else "buffers"
            sent.append(SENT.get(args[0].dtype, of_bytes) if name == "all_reduce" else name)
            return original(*args, **kwargs)

        return call

    with ExitStack() as patches:
        for name in COLLECTIVES:
            patches.enter_context(patch.object(dist, name, noting(name, getattr(dist, name))))
        yield


def state_of(module):
    """What a measurement must put back, besides what weights would show."""
    hooks = [(m.training, *m._forward_hooks, *m._forward_pre_hooks) for m in module.modules()]
    return hooks, torch.is_grad_enabled(), torch.is_inference_mode_enabled()


def run_all(rank, world, folder, cases, seconds=15):
    """Write down what `run` returns for each case: a fault's name, its processes, and how to run.

    Each case has a process group of its own, so that one that hangs or falls out of step is alone
    in that.
    """
    join(rank, world)
    weights_alone(world)  # trained while the processes are in step
    for number, (name, where, how) in enumerate(cases):
        meet(rank, world, Path(folder, f"group_{number}"), seconds)
        on_error, *without_a_vote = how.split(maxsplit=1)
        agree = (lambda self, work, *_: work()) if without_a_vote else Processes.agree
        with patch.object(Processes, "agree", agree):
            shown = run(ALL[name], rank in where, world, on_error, not without_a_vote)
        Path(folder, f"shown_{number}_{rank}").write_bytes(pickle.dumps(shown))
    meet(rank, world, Path(folder, "end"), seconds)


def meet(rank, world, place, seconds):
    """Leave the process group for a new one."""
    dist.destroy_process_group()
    patience = timedelta(seconds=seconds)
    dist.init_process_group("gloo", place.as_uri(), patience, world_size=world, rank=rank)
