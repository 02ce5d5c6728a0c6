"""Runs in which processes do not have the same callbacks; run by `test_on_all_processes`."""

import tempfile
import time
import warnings
from contextlib import suppress

import torch
from pytorch_lightning import Callback
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, LocalElasticity, NeuralCollapse, Probe
from tests import nets
from tests.callbacks.processes_of_lightning import join


def collapse(**options):
    return NeuralCollapse(figures=False, **options)


def law(**options):
    return EquiSeparation(figures=False, **options)


def elasticity(**options):
    return LocalElasticity(figures=False, **options)


def cached(rank):
    return Probe("train", cache_mb=512 * rank)


# the callbacks of each process; some that share a pass, and some with passes of their own
CASES = {
    "the same": lambda rank: [collapse(), law()],
    "one more on the first": lambda rank: [collapse(), *([law()] if rank == 0 else [])],
    "one more on the second": lambda rank: [collapse(), *([law()] if rank == 1 else [])],
    "on the first alone": lambda rank: [collapse(), law()] if rank == 0 else [],
    "another schedule": lambda rank: [collapse(), law(every_n_epochs=1 + rank)],
    "features kept by one": lambda rank: [law(probe=cached(rank))],
    "other samples compared": lambda rank: [elasticity(samples_per_class=2 + rank)],
    "other outputs compared": lambda rank: [elasticity(outputs=2 + rank)],
    "the same again": lambda rank: [collapse(), law()],
}


EVALUATED = "evaluated, the first process late"
AFTER_A_FAILURE = "one more on the first, after a run that failed"


class Failing(Callback):
    """Fails on all processes before anything is measured."""

    def on_train_start(self, trainer, pl_module):
        raise OSError("the disk is gone")


def run(callbacks, world):
    """Train; what was measured and told, and the weights."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.manual_seed(5)
        module = nets.Classifier(freeze=0)
        trainer = nets.trainer(folder, callbacks, strategy="ddp", devices=world)
        started = time.monotonic()
        trainer.fit(module, DataLoader(nets.vectors(), 5, shuffle=True))
    return {
        "weights": module.state_dict(),
        "measured": {type(c).__name__: [m.epochs_completed for m in c.history] for c in callbacks},
        "told": [str(w.message) for w in told if w.category is RuntimeWarning],
        "seconds": time.monotonic() - started,
    }


class Late(Callback):
    """Comes to the end of tests and validations when other processes are done with theirs."""

    def on_test_end(self, trainer, pl_module):
        time.sleep(trainer.is_global_zero)

    on_validation_end = on_test_end


def evaluate(world):
    """Test and validate with callbacks that measure nothing then; what was told on this process."""
    callbacks = [Late(), collapse(), law()]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer = nets.trainer(folder, callbacks, strategy="ddp", devices=world)
        for stage in (trainer.test, trainer.validate):
            stage(nets.Classifier(freeze=0), DataLoader(nets.vectors(), 5), verbose=False)
    return [str(w.message) for w in told if w.category is RuntimeWarning]


def run_all(rank, world):
    """Every case, after a run without callbacks."""
    join(rank, world)
    results = {"none": run([], world)} | {k: run(make(rank), world) for k, make in CASES.items()}
    results[EVALUATED] = evaluate(world)
    with suppress(OSError):
        run([Failing(), collapse(), law()], world)
    results[AFTER_A_FAILURE] = run(CASES["one more on the first"](rank), world)
    return results


def run_raising(rank, world):
    """The first process alone has a callback that is to stop the run if it fails."""
    join(rank, world)
    run([law(on_error="raise")] if rank == 0 else [], world)
