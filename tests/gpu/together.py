"""The work of one of several processes: train under a strategy, and measure with the others."""

import os
import tempfile
import traceback
import warnings

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import NeuralCollapse
from lightning_nc.callbacks.equi_separation import EquiSeparation
from lightning_nc.callbacks.local_elasticity import LocalElasticity
from lightning_nc.callbacks.minority_collapse import MinorityCollapse
from lightning_nc.passes.probe import Probe
from tests.gpu import networks
from tests.gpu.device import on_cuda
from tests.gpu.given import clusters
from tests.gpu.runs import Classifier, trainer


class Whole(Classifier):
    """Keeps whole weights at the end of training, however they are sharded."""

    weights = None

    def on_train_end(self):
        wrapped = self.trainer.strategy.model
        if isinstance(wrapped, FullyShardedDataParallel):
            with FullyShardedDataParallel.summon_full_params(wrapped):
                self.weights = whole(self)
        else:
            self.weights = whole(self)


class Sharded(Whole):
    """Shards its layers and itself with FSDP2."""

    def configure_model(self):
        mesh = self.device_mesh["data_parallel"]
        for module in (self.net.first, self.net.second):
            fully_shard(module, mesh=mesh)
        fully_shard(self, mesh=mesh)


class Evaluated(Classifier):
    """Can be validated on its own."""

    def validation_step(self, batch, _):
        return self(batch[0])


class OnCPU(FSDPStrategy):
    """FSDP1 on a CPU, which must be named as its device."""

    def _setup_model(self, model):
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **self.kwargs)


def whole(module):
    """Copies of parameters and buffers on the CPU."""
    weights = {}
    for name, value in module.state_dict().items():
        value = value.full_tensor() if hasattr(value, "full_tensor") else value
        # a clone, since FSDP1 keeps them whole only for a while
        weights[name.replace("_fsdp_wrapped_module.", "")] = value.detach().cpu().clone()
    return weights


# the module, its strategy for a number of processes, and other options of the Trainer
KINDS = {
    "DDP": (Whole, lambda world: DDPStrategy(), {}),
    "SyncBatchNorm": (Whole, lambda world: DDPStrategy(), {"sync_batchnorm": True}),
    "FSDPStrategy": (Whole, lambda world: FSDPStrategy() if on_cuda() else OnCPU(), {}),
    "fully_shard": (Sharded, lambda world: ModelParallelStrategy(world, 1), {}),
}
IN_PARTS = ("FSDPStrategy", "fully_shard")


def network(kind):
    """A network with BatchNorm only if its running statistics are the same on all processes."""
    return networks.mlp(norm=nn.BatchNorm1d if kind == "SyncBatchNorm" else nn.LayerNorm)


def data():
    return TensorDataset(*clusters(4, 9, d=6))


def callbacks(kind):
    """All callbacks, which measure data of their own after the last epoch."""
    probe = Probe(data(), "p", samples_per_class=None, batch_size=7)
    common = {"probe": probe, "epochs": [2], "figures": False, "on_error": "raise"}
    compared = {"parameters": "last_layer"} if kind in IN_PARTS else {}
    return [
        EquiSeparation(**common),
        NeuralCollapse(**common),
        MinorityCollapse(minority=[2, 3], class_counts=[9, 9, 2, 2], **common),
        LocalElasticity(samples_per_class=2, relative_similarity=True, **compared, **common),
    ]


def train(kind, world, used=()):
    """Train for two epochs; return the final weights, and the losses of this process."""
    module_class, strategy, options = KINDS[kind]
    torch.manual_seed(4)
    module = module_class(network(kind))
    with tempfile.TemporaryDirectory() as folder:
        # each process is a node with one device, so that several can share a device
        run = trainer(
            folder, used, strategy=strategy(world), num_nodes=world, deterministic=True, **options
        )
        torch.manual_seed(8)
        run.fit(module, DataLoader(data(), 6, shuffle=True))
    return module.weights, [loss.cpu() for loss, _ in module.steps]


BOOKKEEPING = {
    *("seconds", "figure_seconds", "relative_similarity_seconds"),
    *("failures", "epochs_completed", "num_classes", "num_samples"),
}


def values_of(used):
    """The quantities of the last measurement, without what they cost."""
    values = {k: v for callback in used for k, v in callback.history[-1].values.items()}
    return {key: v for key, v in values.items() if key.rpartition("/")[2] not in BOOKKEEPING}


def measured_by_one(kind, weights):
    """The values that a single process measures at the same weights."""
    module, used = Evaluated(network(kind)), callbacks(kind)
    module.load_state_dict(weights)
    with tempfile.TemporaryDirectory() as folder:
        run = trainer(folder, used)
        run.validate(module, DataLoader(data(), 6), verbose=False)
    return values_of(used)


def compare(rank, world, kinds, backend):
    """Train each kind alone and with callbacks; return both and the values, or a traceback."""
    os.environ.update(LOCAL_RANK="0", NODE_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT="29999")  # needed by Lightning, but not used: the group exists
    if on_cuda():
        torch.cuda.set_device(0)
    if backend != "gloo":  # a group of one process
        dist.destroy_process_group()
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    results = {}
    for kind in kinds:
        warnings.simplefilter("ignore")
        try:
            used = callbacks(kind)
            alone, with_callbacks = train(kind, world), train(kind, world, used)
            results[kind] = alone, with_callbacks, values_of(used)
        except Exception:
            results[kind] = traceback.format_exc()
    torch.use_deterministic_algorithms(False)
    return results
