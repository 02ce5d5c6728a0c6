"""A run in which processes have devices with little memory; run by `test_short_of_memory`."""

import tempfile
import warnings

import torch
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, NeuralCollapse
from lightning_nc.passes import geometry_pass
from tests import nets
from tests.callbacks.processes_of_lightning import join


def pretend(free):
    """Let the device of this process have so many MB free; None for what there is."""
    geometry_pass.has_own_memory = lambda device: free is not None
    geometry_pass.free_megabytes = lambda device: float("inf") if free is None else free


def run(world):
    """Train and measure; the values of the last measurement, and what was told."""
    callbacks = [NeuralCollapse(figures=False), EquiSeparation(figures=False)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.manual_seed(5)
        trainer = nets.trainer(folder, callbacks, strategy="ddp", devices=world)
        trainer.fit(nets.Classifier(freeze=0), DataLoader(nets.vectors(), 5, shuffle=True))
    values = {k: v for each in callbacks for k, v in each.history[-1].values.items()}
    values = {key: value for key, value in values.items() if not key.endswith("/seconds")}
    return values, [str(w.message) for w in told if w.category is RuntimeWarning]


def run_with_little_on_the_second(rank, world):
    """One run with enough memory, and one in which the second process is short of it."""
    join(rank, world)
    results = []
    for free in (None, [1e4, 1e-3][rank]):
        pretend(free)
        results.append(run(world))
    return results
