"""What one process of a DDP run does; run in children by `test_distributed`."""

import os
import tempfile
import warnings
from contextlib import ExitStack
from unittest.mock import patch

import torch
from pytorch_lightning import Callback
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, LocalElasticity, NeuralCollapse, Probe, measure
from lightning_nc.callbacks import measure_callback
from tests import nets

COLLECTIVES = ["all_reduce", "all_gather", "broadcast", "barrier", "all_gather_object", "reduce"]


class BrokenHere(nets.Blobs):
    """A dataset that some processes cannot read, or read with other labels."""

    def __init__(self, broken, shifted=False):
        super().__init__(augment=False)
        self.broken = broken
        if shifted:
            self.targets = (self.targets + 1) % 3

    def __getitem__(self, index):
        if self.broken:
            raise OSError("the disk of this process is gone")
        return super().__getitem__(index)


class Stop(Callback):
    """Fails after the first epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        raise OSError("the disk is gone")


def network(K=3):
    """With BatchNorm layers whose running statistics are not those of a batch."""
    torch.manual_seed(4)
    net = nets.mlp(K=K)
    for module in net:
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return net


def train(world, callbacks, freeze=0, counts=(12, 9, 9), **options):
    """Train for two epochs; the module and the Trainer."""
    strategy = {"strategy": "ddp", "devices": world} if world > 1 else {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nets.Classifier(network(len(counts)), freeze=freeze)
        run = nets.trainer(folder, callbacks, num_sanity_val_steps=0, **strategy, **options)
        torch.manual_seed(8)
        run.fit(module, DataLoader(nets.vectors(counts), 5, shuffle=True))
    return module, run


def watching(function, counted):
    """The function, which appends the names of the collectives that are called in it."""

    def counting(name, original):
        def call(*args, **kwargs):
            counted.append(name)
            return original(*args, **kwargs)

        return call

    def watched(*args, **kwargs):
        names = [name for name in COLLECTIVES if hasattr(torch.distributed, name)]
        with ExitStack() as patches:
            for name in names:
                new = counting(name, getattr(torch.distributed, name))
                patches.enter_context(patch.object(torch.distributed, name, new))
            return function(*args, **kwargs)

    return watched


def measured(
    world,
    epochs=(0,),
    batch_size=7,
    counts=(12, 9, 9),
    freeze=0,
    sync=False,
    elastic=None,
    **probe,
):
    """Values of callbacks before training, and the collectives that they cost."""
    options = {
        "probe": Probe(batch_size=batch_size, **probe),
        "epochs": epochs,
        "on_error": "raise",
        "figures": False,
    }
    if elastic is None:
        used = [EquiSeparation(**options), NeuralCollapse(layers="blocks", **options)]
    else:
        used = [LocalElasticity(**options, **elastic)]
    counted = []
    watched = watching(measure_callback.measure_together, counted)
    # DDP refuses SyncBatchNorm on CPUs, where its frozen layers work all the same
    refusal = patch.object(DistributedDataParallel, "_passing_sync_batchnorm_handle")
    with refusal, patch.object(measure_callback, "measure_together", watched):
        train(world, used, freeze, counts, max_epochs=1, sync_batchnorm=sync)
    values = {}
    for callback in used:
        (measurement,) = callback.history
        values |= {k: v for k, v in measurement.values.items() if not k.endswith("seconds")}
    return values, counted


MEASURED = {
    "an odd number of batches": {},
    "batch statistics": {"batch_norm": "batch"},
    "fewer batches than processes": {"batch_size": 30},
    "fewer batches than processes, batch statistics": {"batch_size": 30, "batch_norm": "batch"},
    "two sweeps": {"cache_mb": 0},
    "two sweeps, fewer batches than processes": {"cache_mb": 0, "batch_size": 30},
    "a probe of few samples": {"samples_per_class": 5, "batch_norm": "batch"},
    "each class on one process only": {"samples_per_class": 1, "batch_size": 1},
    "fewer samples than three processes": {
        "samples_per_class": 1,
        "batch_size": 1,
        "counts": (12, 8),  # batches of two or more, as BatchNorm wants
    },
    "synchronised BatchNorm": {"sync": True, "freeze": 2},
    "synchronised BatchNorm, batch statistics": {
        "sync": True,
        "freeze": 2,
        "batch_norm": "batch",
    },
    "gradients compared": {"elastic": {"relative_similarity": True}},
    "gradients compared in two directions": {
        "elastic": {"outputs": 2, "relative_similarity": True}
    },
    "gradients compared in one, on one process": {"elastic": {"outputs": lambda f: f[:, 0]}},
    "gradients of the last layer compared": {
        "elastic": {"parameters": "last_layer", "relative_similarity": True}
    },
}


def measured_after_training(world):
    """Values after an epoch that left each process statistics of its own, and those it should be.

    With them the buffers of this process.
    """
    probe = Probe(nets.vectors(), "own", batch_size=7)
    callback = NeuralCollapse(probe=probe, epochs=[1], figures=False)
    module, _ = train(world, [callback], max_epochs=1)
    alone = measure(module, probe).values
    (measurement,) = callback.history
    found = {k: v for k, v in measurement.values.items() if not k.endswith("seconds")}
    return found, alone, {name: b.clone() for name, b in module.named_buffers()}


def join(rank, world):
    """Tell Lightning that it is one process of a group that exists."""
    os.environ.update(
        LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="29999"
    )


def measure_all(rank, world):
    """Values and collectives of every case."""
    join(rank, world)
    return {name: measured(world, **case) for name, case in MEASURED.items()}


def measure_and_train(rank, world):
    """`measure_all`, `train_all` and `measured_after_training`."""
    return measure_all(rank, world), train_all(world), measured_after_training(world)


def train_all(world):
    """Final weights of trainings that must all be the same, and what went wrong in them."""
    rank = torch.distributed.get_rank()
    weights, notes = {}, {}

    def note(name, callback):
        weights[name] = train(world, [] if callback is None else [callback])[0].state_dict()
        if callback is not None:
            notes[name] = (callback.failures, len(callback.history))

    note("alone", None)
    note("measured", NeuralCollapse(figures=False))
    note("measured with batch statistics", EquiSeparation(probe=Probe(batch_norm="batch")))
    broken = Probe(BrokenHere(broken=rank == 1), "broken")
    note("broken", NeuralCollapse(probe=broken))
    other = Probe(BrokenHere(broken=False, shifted=rank == 1), "other")
    note("other", EquiSeparation(probe=other))
    try:
        train(world, [NeuralCollapse(probe=broken, on_error="raise")])
    except Exception as error:
        notes["raised"] = f"{type(error).__name__}: {error}"
    notes["stopped"] = stopped(world)
    return weights, notes


def stopped(world):
    """How a run ends that fails, which figures it leaves, and the collectives that these cost."""
    callback, counted, ended = NeuralCollapse(figures="last"), [], None
    watched = watching(measure_callback.publish_final_figures, counted)
    with patch.object(measure_callback, "publish_final_figures", watched):
        try:
            train(world, [callback, Stop()])
        except OSError as error:
            ended = str(error)
    return ended, callback.record.drawn, counted
