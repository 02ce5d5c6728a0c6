"""Training on the device is the same with and without the callbacks, to the last bit."""

import functools
import shutil
import tempfile

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_nc import NeuralCollapse, functional
from lightning_nc.callbacks.equi_separation import EquiSeparation
from lightning_nc.callbacks.local_elasticity import LocalElasticity
from lightning_nc.callbacks.minority_collapse import MinorityCollapse
from lightning_nc.guards.generators import seed_generators
from lightning_nc.guards.unobtrusive import unobtrusive
from tests.gpu import networks
from tests.gpu.device import device, needs_cuda, on_cuda, only_our_warnings
from tests.gpu.runs import fit, trace, vectors
from tests.traces import difference

pytestmark = only_our_warnings


def pictures():
    return TensorDataset(*networks.small_images())


def compiled(**options):
    # batches of one size, so that the network is compiled only once
    return {"wrap": functools.partial(torch.compile, **options), "batch_size": 9}


MLP = {"net": functools.partial(networks.mlp, dropout=0.3), "data": vectors}
CONVNET = {"net": networks.convnet, "data": pictures}
IN_CHANNELS_LAST = functools.partial(networks.convnet, layout=networks.ChannelsLast)

# what to train, and how
SETTINGS = {
    "dropout and random data": MLP,
    "convolutions": CONVNET,
    "convolutions, channels last": {**CONVNET, "net": IN_CHANNELS_LAST},
    "gradient checkpointing": {"net": networks.recomputed, "data": vectors},
    "workers and pinned memory": {**MLP, "workers": 2},
    "gradient accumulation": {**MLP, "accumulate_grad_batches": 2},
    "bf16-mixed": {**CONVNET, "precision": "bf16-mixed"},
    "inductor": {**MLP, **compiled()},
    "inductor, convolutions": {**CONVNET, **compiled()},
    "CUDA graphs": {**MLP, **compiled(mode="reduce-overhead")},
    "CUDA graphs, convolutions": {**CONVNET, **compiled(mode="reduce-overhead")},
    "fp16-mixed and a scaler": {**CONVNET, "precision": "16-mixed"},
    "fp16-mixed and accumulation": {**MLP, "precision": "16-mixed", "accumulate_grad_batches": 2},
}
# a second compilation takes a CPU a quarter of a minute
ON_CUDA_ALONE = ("CUDA graphs", "fp16", "inductor, convolutions")

CALLBACKS = {
    "EquiSeparation": EquiSeparation,
    "NeuralCollapse": NeuralCollapse,
    "MinorityCollapse": functools.partial(
        MinorityCollapse, minority=[2, 3], class_counts=[9, 9, 2, 2]
    ),
    "LocalElasticity": functools.partial(
        LocalElasticity, samples_per_class=2, relative_similarity=True
    ),
}


def settings():
    for name in SETTINGS:
        marks = [pytest.mark.slow] * ("inductor" in name)
        if name.startswith(ON_CUDA_ALONE):
            marks.append(needs_cuda(name))
        yield pytest.param(name, marks=marks)


def train(setting, callbacks=()):
    if "wrap" in SETTINGS[setting]:
        compilers = ("cc", "gcc", "clang") if on_cuda() else ("g++", "clang++")
        if not any(map(shutil.which, compilers)):
            pytest.skip("no compiler, which inductor asks for")
        torch.compiler.reset()
    options = dict(SETTINGS[setting])
    data = options.pop("data")()
    with tempfile.TemporaryDirectory() as folder:
        return trace(*fit(folder, data=data, callbacks=callbacks, deterministic=True, **options))


@functools.cache
def untouched(setting):
    """The same training without a callback."""
    return train(setting)


def assert_same_training(found, setting):
    place = difference(found, untouched(setting))
    if place is not None:
        itself = difference(train(setting), untouched(setting))
        assert itself is None, f"training alone is not the same twice: {itself} differs"
    assert place is None, f"{place} changed"


@pytest.mark.parametrize("setting", list(settings()))
def test_training_is_bit_identical_with_all_callbacks(setting):
    callbacks = [make(figures=False, on_error="raise") for make in CALLBACKS.values()]
    assert_same_training(train(setting, callbacks), setting)
    measured = [[m.epochs_completed for m in callback.history] for callback in callbacks]
    assert measured == [[0, 1, 2]] * len(callbacks)


@pytest.mark.parametrize("setting", ["dropout and random data", "convolutions"])
@pytest.mark.parametrize("name", CALLBACKS)
def test_training_is_bit_identical_with_each_callback(name, setting):
    callback = CALLBACKS[name](figures=False, on_error="raise")
    assert_same_training(train(setting, [callback]), setting)
    assert len(callback.history) == 3


def draw(module):
    torch.rand((), device=module.device)


def move_statistics(module):
    module.net.norm.running_mean.add_(1e-7)


def scale_a_weight(module):
    with torch.no_grad():
        module.net.head.weight.mul_(1 + 1e-6)


@pytest.mark.parametrize("deed", [draw, move_statistics, scale_a_weight])
def test_the_comparison_notices_a_callback_that_touches(deed):
    class Trespassing(NeuralCollapse):
        def on_train_epoch_end(self, trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)
            deed(pl_module)

    place = difference(
        train("convolutions", [Trespassing(figures=False)]), untouched("convolutions")
    )
    assert place is not None


@needs_cuda("its generator")
def test_dropout_draws_from_the_generator_of_the_device():
    before = torch.cuda.get_rng_state()
    torch.nn.functional.dropout(torch.ones(9, device=device()), 0.5)
    assert not torch.equal(before, torch.cuda.get_rng_state())


def states():
    """The states of the generators of all devices, and of the CPU."""
    devices = torch.cuda.get_rng_state_all() if on_cuda() else []
    return [torch.get_rng_state(), *devices]


def draw_everywhere():
    places = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [torch.rand(3, device=place).tolist() for place in ["cpu", *places]]


def test_generators_of_all_devices_are_put_back_and_seeded_alike():
    draw_everywhere()  # also sets the devices up
    before, drawn = states(), []
    for _ in range(2):
        with unobtrusive(torch.nn.Identity()):
            seed_generators(3, 4)
            drawn.append(draw_everywhere())
    assert drawn[0] == drawn[1]
    assert all(map(torch.equal, before, states()))


@needs_cuda("cuDNN's dropout")  # builds for CUDA have cuDNN without a device, too
@pytest.mark.skipif(not torch.backends.cudnn.is_available(), reason="no cuDNN: its dropout")
def test_recurrent_layers_go_on_with_the_dropout_of_cudnn_after_a_measurement():
    net, x = networks.recurrent(layers=2, dropout=0.5).to(device()), torch.randn(5, 6).to(device())
    net(x)  # starts the dropout, with a seed from the generator; from then on it has its own state
    before = states()
    with unobtrusive(net):
        seed_generators(3, 4)
    functional.gradient_kernel(torch.nn.Linear(6, 2).to(device()), x)
    net(x)
    assert all(map(torch.equal, before, states()))


def test_buffers_of_another_size_come_back_on_the_device():
    net = torch.nn.BatchNorm1d(2).to(device())
    net.register_buffer("sized", torch.zeros(0, device=device()))
    with unobtrusive(net):
        net.sized.resize_(5).fill_(1)
        net.running_mean.add_(1)
    assert net.sized.shape == (0,)
    assert not net.running_mean.any()


def test_sparse_buffers_come_back_on_the_device():
    net = torch.nn.Identity()
    net.register_buffer("edges", torch.eye(3, device=device()).to_sparse())
    with unobtrusive(net):
        net.edges.values().mul_(2)
    assert torch.equal(net.edges.to_dense().cpu(), torch.eye(3))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_a_forward_pass_that_moves_numbers_is_noticed_on_the_device(kind):
    # longer than what is summed at a time
    start = torch.arange(2**22 + 2**10, dtype=torch.float64).sin().to(device(), kind)
    net = torch.nn.ParameterList([start.view(-1, 2**10)])
    with unobtrusive(net):
        pass

    def turn():
        net[0].data.copy_(net[0].data.roll(1, 0))

    def change_signs():
        net[0].data[:, 1].neg_()

    for change in (turn, change_signs):
        with pytest.raises(RuntimeError, match="changed the parameters 0"), unobtrusive(net):
            change()
