"""What one process of a sharded run does; run in children by `test_sharding`."""

import math
import tempfile
import warnings
from collections import UserList
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import EquiSeparation, LocalElasticity, NeuralCollapse, Probe, measure
from lightning_nc.guards import unobtrusive as guards
from tests import nets
from tests.callbacks.changing_networks import Block, Signals, signals
from tests.callbacks.processes_of_lightning import join


class FullyShard(nets.UnifiedClassifier):
    """Shards its layers, and itself, as the second FSDP does."""

    def configure_model(self):
        mesh = self.device_mesh["data_parallel"]
        for module in [m for m in self.net if isinstance(m, nn.Linear)][:-1]:
            fully_shard(module, mesh=mesh)
        fully_shard(self, mesh=mesh)


class HeadByItself(FullyShard):
    """Its head is whole only while it runs."""

    def configure_model(self):
        fully_shard(self.net[-1], mesh=self.device_mesh["data_parallel"])
        super().configure_model()


class HybridShard(nets.UnifiedClassifier):
    """Shards over pairs of processes, and replicates these, as the second FSDP does."""

    def configure_model(self):
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
        for module in [m for m in self.net if isinstance(m, nn.Linear)][:-1]:
            fully_shard(module, mesh=mesh)
        fully_shard(self, mesh=mesh)


class OfBlocks(nets.UnifiedClassifier):
    """Has blocks of a class of its own, and longer inputs after the first epoch."""

    def train_dataloader(self):
        return DataLoader(signals(9 if self.trainer.current_epoch > 0 else 6), 5)


class ShardedBlocks(OfBlocks):
    def configure_model(self):
        mesh = self.device_mesh["data_parallel"]
        for block in self.net.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self, mesh=mesh)


class WithoutItself(OfBlocks):
    """Shards its blocks and not itself, so that its other layers train apart."""

    def configure_model(self):
        for block in self.net.blocks:
            fully_shard(block, mesh=self.device_mesh["data_parallel"])


class OneElsewhere(nets.UnifiedClassifier):
    """Moves a layer on one process alone, which DDP does not see."""

    def on_train_epoch_start(self):
        if self.global_rank == 1:
            with torch.no_grad():
                self.net[0].weight.add_(1)


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter beside it."""

    def __init__(self, d, K):
        super().__init__()
        self.linear = nn.Linear(d, K)
        self.down, self.up = (nn.Parameter(torch.randn(shape)) for shape in ((d, 2), (2, K)))

    def forward(self, h):
        return self.linear(h) + h @ self.down @ self.up


class Margin(nn.Module):
    """The matrix of classes, which the loss alone multiplies by."""

    def __init__(self):
        super().__init__()
        self.classes = nn.Parameter(torch.randn(3, 8))

    def forward(self, h):
        return nn.functional.normalize(h) @ nn.functional.normalize(self.classes).mT


class OfMargin(nets.UnifiedClassifier):
    """Has no head: its network embeds."""

    def __init__(self, net):
        super().__init__(net, freeze=0)
        self.margin = Margin()

    def loss_of(self, batch):
        return nn.functional.cross_entropy(self.margin(self(batch[0])), batch[1])


def with_head(head):
    return nets.UnifiedClassifier(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), head), freeze=0)


def of_pixels():
    """Maps the pixels around each to its class."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    return nets.UnifiedClassifier(net, freeze=0)


def pixels():
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (10, 6, 6), generator=random)
    return TensorDataset(labels[:, None] + torch.randn(10, 1, 6, 6, generator=random), labels)


# what the weights of heads, and of modules beside them, tell while they are whole
OF_HEADS = {
    "weight norm": (lambda: with_head(weight_norm(nn.Linear(8, 3))), nets.vectors),
    "adapter": (lambda: with_head(Adapted(8, 3)), nets.vectors),
    "none, by a loss with a matrix": (lambda: OfMargin(nn.Linear(6, 8)), nets.vectors),
    "none, by 3 x 3 pixels": (of_pixels, pixels),
}


class OnCPU(FSDPStrategy):
    """The first FSDP, which asks for a device that is none."""

    def _setup_model(self, model):
        return FullyShardedDataParallel(
            model,
            device_id=torch.device("cpu"),
            mixed_precision=self.mixed_precision_config,
            **self.kwargs,
        )


def each_layer():
    return ModuleWrapPolicy({nn.Linear})


# the module, the strategy and the precision
SHARDED = {
    "ddp": (nets.UnifiedClassifier, lambda: "ddp", "32-true"),
    "fully_shard": (FullyShard, lambda: ModelParallelStrategy(2, 1), "32-true"),
    "fully_shard, head by itself": (HeadByItself, lambda: ModelParallelStrategy(2, 1), "32-true"),
    "fully_shard, bf16": (FullyShard, lambda: ModelParallelStrategy(2, 1), "bf16-mixed"),
    "FSDP": (nets.UnifiedClassifier, OnCPU, "32-true"),
    "FSDP, bf16": (nets.UnifiedClassifier, OnCPU, "bf16-mixed"),  # also buffers
    "FSDP of each layer": (
        nets.UnifiedClassifier,
        lambda: OnCPU(auto_wrap_policy=each_layer()),
        "32-true",
    ),
    "FSDP of each layer, bf16": (
        nets.UnifiedClassifier,
        lambda: OnCPU(auto_wrap_policy=each_layer()),
        "bf16-mixed",
    ),
}

# the module and the strategy
OF_BLOCKS = {
    "ddp": (OfBlocks, lambda: "ddp"),
    "fully_shard": (ShardedBlocks, lambda: ModelParallelStrategy(2, 1)),
    "FSDP of each block": (OfBlocks, lambda: OnCPU(auto_wrap_policy=ModuleWrapPolicy({Block}))),
}

APART = {
    "a layer that one process moves": (OneElsewhere, lambda: "ddp", "32-true"),
    "a root that is not sharded": (WithoutItself, lambda: ModelParallelStrategy(2, 1), "32-true"),
}

# for four processes: pairs of shards, replicated; on gloo, the first FSDP does not keep them equal
HYBRID = {
    "ddp": SHARDED["ddp"],
    "fully_shard": (HybridShard, lambda: ModelParallelStrategy(4, 1), "32-true"),
}

# an odd number of batches, one that both read, and the network twice
PROBES = {
    "five batches": {"batch_size": 7},
    "one batch, two sweeps, its statistics": {
        "batch_size": 30,
        "cache_mb": 0,
        "batch_norm": "batch",
    },
    "a part by its name": {"batch_size": 7, "forward": "net"},
}


class Failing(nets.Blobs):
    """Cannot be read on a process from a reading on: a first batch is read, or is not."""

    def __init__(self, broken, readings):
        super().__init__(augment=False)
        # an object of a library, since lists and objects of a user's own are put back
        self.broken, self.readings, self.read = broken, readings, UserList()

    def __getitem__(self, index):
        self.read.append(index)
        if len(self.read) > self.readings and self.broken:
            raise OSError("the disk of this process is gone")
        return super().__getitem__(index)


def whole(module):
    """A copy of all parameters and buffers, in float32."""
    state = module.state_dict()
    return {
        name.replace("_fsdp_wrapped_module.", ""): (
            value.full_tensor() if hasattr(value, "full_tensor") else value
        ).clone()
        for name, value in state.items()
    }


def train(kind, callbacks, kinds=SHARDED, devices=2):
    """Final weights of two epochs, whatever the sharding."""
    module_class, strategy, precision = kinds[kind]
    torch.manual_seed(4)
    module = module_class(nets.mlp(), freeze=0)
    with tempfile.TemporaryDirectory() as folder:
        run = nets.trainer(
            folder,
            callbacks,
            namespace="lightning",
            strategy=strategy(),
            devices=devices,
            precision=precision,
            num_sanity_val_steps=0,
        )
        torch.manual_seed(8)
        run.fit(module, DataLoader(nets.vectors(), 5, shuffle=True))
    wrapped = run.strategy.model
    if isinstance(wrapped, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(wrapped):
            return whole(module)
    return whole(module)


def measured(kind, probe, *where):
    options = {"figures": False, "on_error": "raise"}
    used = [c(probe=probe, **options) for c in (EquiSeparation, NeuralCollapse)]
    of_head = {"parameters": "last_layer", "relative_similarity": True}
    used += [LocalElasticity(probe=replace(probe, batch_norm="eval"), **of_head, **options)]
    weights = train(kind, used, *where)
    values = [
        {k: v for c in used for k, v in c.history[i].values.items() if not k.endswith("seconds")}
        for i in range(len(used[0].history))
    ]
    return weights, values


def train_sharded(rank, world):
    """For each kind: weights alone, and weights and values of each probe."""
    join(rank, world)
    warnings.simplefilter("ignore")
    results = {}
    for kind in SHARDED:
        results[kind] = {"alone": train(kind, [])}
        for name, options in PROBES.items():
            results[kind][name] = measured(kind, Probe(**options))
    return results


def measured_blocks(rank, world):
    """For each kind the values of blocks after each epoch."""
    join(rank, world)
    results = {}
    for kind, (module_class, strategy) in OF_BLOCKS.items():
        torch.manual_seed(4)
        callback = EquiSeparation(figures=False, on_error="raise")
        with tempfile.TemporaryDirectory() as folder:
            run = nets.trainer(
                folder,
                [callback],
                namespace="lightning",
                strategy=strategy(),
                devices=world,
                limit_val_batches=0,
                reload_dataloaders_every_n_epochs=1,
            )
            run.fit(module_class(Signals(), freeze=0))
        results[kind] = [m.values for m in callback.history]
    return results


def told_of_parameters(rank, world):
    """For each kind what is said of parameters that differ between processes."""
    join(rank, world)
    told = {}
    for kind, (module, strategy, precision) in (SHARDED | APART).items():
        torch.manual_seed(4)
        callbacks = [EquiSeparation(figures=False), NeuralCollapse(figures=False)]
        options = {"strategy": strategy(), "precision": precision, "devices": world}
        of_blocks = issubclass(module, OfBlocks)
        with tempfile.TemporaryDirectory() as folder, nets.our_warnings() as ours:
            run = nets.trainer(folder, callbacks, namespace="lightning", **options)
            data = signals(6) if of_blocks else nets.vectors()
            run.fit(module(Signals() if of_blocks else nets.mlp(), freeze=0), DataLoader(data, 5))
        told[kind] = [each for each in ours if "not the same on all processes" in each]
    return told


def measured_heads(rank, world):
    """For each head what is measured before training under DDP and under the first FSDP."""
    join(rank, world)
    warnings.simplefilter("ignore")
    results = {}
    for head, (module, data) in OF_HEADS.items():
        for kind, strategy in (("ddp", "ddp"), ("FSDP", OnCPU())):
            torch.manual_seed(4)
            callback = NeuralCollapse(epochs=[0], figures=False, on_error="raise")
            options = {"namespace": "lightning", "strategy": strategy, "devices": world}
            with tempfile.TemporaryDirectory() as folder:
                run = nets.trainer(folder, [callback], max_epochs=1, limit_val_batches=0, **options)
                run.fit(module(), DataLoader(data(), 5))
            results[head, kind] = callback.history[0].values
    return results


def train_hybrid(rank, world):
    """For each hybrid kind: weights alone, and weights and values of a probe."""
    join(rank, world)
    warnings.simplefilter("ignore")
    where = HYBRID, world
    probe = Probe(batch_size=7)
    return {kind: (train(kind, [], *where), *measured(kind, probe, *where)) for kind in HYBRID}


def assert_like_ddp(processes, kind):
    """Weights are those of training alone, and values those of DDP, the same on all processes.

    The results of each process have weights alone, and weights and values measured, by kind.
    """
    expected, first = (processes[0][each][2] for each in ("ddp", kind))
    for results in processes:
        alone, weights, values = results[kind]
        assert nets.same(weights, alone)
        assert values == first
        for key, value in expected[0].items():
            assert math.isclose(values[0][key], value, rel_tol=1e-12, abs_tol=1e-15), key


def fail_sharded(rank, world):
    """For each kind and moment of failure: weights, failures, and what was told."""
    join(rank, world)
    results = {}
    for kind in ("fully_shard", "FSDP of each layer"):
        for readings in (0, 10, 60, "inputs of another width"):
            named = isinstance(readings, str)
            data = nets.vectors(d=7) if named else Failing(rank == 1, readings)
            callback = NeuralCollapse(probe=Probe(data, "own", batch_size=8), figures=False)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                weights = train(kind, [callback])
            ours = [str(w.message) for w in told if "skipped" in str(w.message)]
            results[kind, readings] = weights, callback.failures, len(callback.history), ours
    return results


def in_two(net, mesh):
    """Splits the features between the first two layers; those after them are whole."""
    return parallelize_module(net, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


IN_PARTS = {
    "whole": lambda net, mesh: net,
    "fully_shard": lambda net, mesh: fully_shard(net, mesh=mesh),
    "tensor parallel": in_two,
}


def measured_in_parts(rank, world):
    """For each kind of sharding what is measured without a Trainer, and what is said."""
    mesh, results = init_device_mesh("cpu", (world,)), {}
    measures = [NeuralCollapse(), LocalElasticity()]
    for kind, shard in IN_PARTS.items():
        torch.manual_seed(4)
        linear = [nn.Linear(*sizes) for sizes in ((6, 12), (12, 10), (10, 3))]
        net = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2])
        with nets.our_warnings() as told:
            results[kind] = (
                measure(shard(net, mesh), nets.vectors(), measures=measures).values,
                told,
            )
    return results


def tensor_parallel(rank, world):
    """What a strategy is told whose processes see parts of features."""
    join(rank, world)

    class Parallel(nets.UnifiedClassifier):
        def configure_model(self):
            pass

    with tempfile.TemporaryDirectory() as folder:
        run = nets.trainer(
            folder,
            [NeuralCollapse()],
            namespace="lightning",
            strategy=ModelParallelStrategy(1, 2),
            devices=2,
        )
        try:
            run.fit(Parallel(), DataLoader(nets.vectors(), 5))
        except ValueError as error:
            return str(error)


def shards_after_a_pass(rank, world, guarded):
    """How many parameters are whole before and after a forward pass under guard."""
    from torch.distributed.tensor import DTensor

    net = nets.mlp()
    fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
    assert isinstance(net, FSDPModule)

    def sharded():
        return [isinstance(p, DTensor) for p in net.parameters()]

    states = [sharded()]
    guard = guards.shards_kept if guarded else lambda model: nullcontext()
    parts = guards.buffers_kept if guarded else lambda model: nullcontext()  # it hides the states
    patched = patch.multiple(guards, shards_kept=guard, buffers_kept=parts)
    with patched, guards.unobtrusive(net):
        net(torch.zeros(4, 6))
        states.append(sharded())
    states.append(sharded())
    return states


def a_pass_after_validation(rank, world):
    """Whether training goes on after a pass of a network that validation has left whole."""
    gradients = []
    for measured in (False, True):
        torch.manual_seed(1)
        net = nets.mlp()
        fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
        with torch.no_grad():
            net(torch.zeros(4, 6))
        if measured:
            with guards.unobtrusive(net):
                net(torch.ones(4, 6))
        torch.manual_seed(2)
        net(torch.ones(4, 6)).sum().backward()
        gradients.append([p.grad.full_tensor() for p in net.parameters()])
    return all(map(torch.equal, *gradients))
