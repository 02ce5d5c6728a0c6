"""What one process of a run under DeepSpeed does, on a CPU; run in children by `test_deepspeed`."""

import os
import warnings
from importlib import import_module

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy

from lightning_nc import Probe
from tests import nets
from tests.callbacks import sharded
from tests.callbacks.processes_of_lightning import join


class OnCPU(DeepSpeedStrategy):
    """DeepSpeed without a GPU, which Lightning refuses though DeepSpeed runs there."""

    @property
    def root_device(self):
        return torch.device("cpu", 0)

    def setup_environment(self):
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self):
        self.set_world_ranks()
        self._init_deepspeed_distributed()


def kind_of(stage):
    def strategy():
        return OnCPU(stage=stage, logging_batch_size_per_gpu=5)

    return nets.UnifiedClassifier, strategy, "32-true"


KINDS = {"ddp": sharded.SHARDED["ddp"]} | {f"stage {n}": kind_of(n) for n in (1, 2, 3)}


def train_stages(rank, world):
    """For DDP and each stage: weights alone, and weights and values of a probe."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    communication = import_module("deepspeed.comm.torch")  # it reads the variable
    communication.build_shm_op = lambda: None  # else it would compile an extension
    join(rank, world)
    warnings.simplefilter("ignore")
    where, probe = (KINDS, world), Probe(batch_size=7)
    found = {
        kind: (sharded.train(kind, [], *where), *sharded.measured(kind, probe, *where))
        for kind in ("ddp", "stage 1", "stage 2")
    }
    try:
        sharded.measured("stage 3", probe, *where)
    except ValueError as error:
        found["stage 3"] = str(error)
    return found
