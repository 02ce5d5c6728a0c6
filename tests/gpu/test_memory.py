"""A measurement returns the memory that it takes, even if there is not enough."""

import weakref

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import TensorDataset

from lightning_nc import NeuralCollapse
from lightning_nc.callbacks.equi_separation import EquiSeparation
from lightning_nc.callbacks.local_elasticity import LocalElasticity
from lightning_nc.callbacks.minority_collapse import MinorityCollapse
from lightning_nc.passes.feature_cache import free_megabytes
from tests.gpu import networks
from tests.gpu.device import device, needs_cuda, on_cuda, only_our_warnings
from tests.gpu.runs import fit, trace
from tests.traces import difference

pytestmark = only_our_warnings

MB = 2**20
# what the allocator may keep after measuring a small network: cuBLAS and cuSOLVER reserve some tens
# of MB when they are first used in float64
KEPT = 64 * MB


def pictures():
    return TensorDataset(*networks.small_images())


class Noting(Callback):
    """Records the memory in use and held by the allocator at the end of each epoch."""

    def __init__(self):
        self.in_use, self.held = [], []

    def on_train_epoch_end(self, trainer, pl_module):
        torch.cuda.synchronize()
        self.in_use.append(torch.cuda.memory_allocated())
        self.held.append(torch.cuda.memory_reserved())


@needs_cuda("its allocator")
def test_the_allocator_holds_little_more_after_a_measurement_than_before(tmp_path):
    before, after = Noting(), Noting()
    ours = [
        EquiSeparation(figures=False, epochs=[1, 2, 3]),
        NeuralCollapse(figures=False, epochs=[1, 2, 3]),
        MinorityCollapse(minority=[2, 3], figures=False, epochs=[1, 2, 3]),
        LocalElasticity(samples_per_class=2, figures=False, epochs=[1, 2, 3]),
    ]
    callbacks = [before, *ours, after]
    fit(tmp_path, networks.convnet, pictures(), callbacks, max_epochs=3)
    assert [len(callback.history) for callback in ours] == [3] * 4
    grown = [b - a for a, b in zip(before.held, after.held, strict=True)]
    assert max(grown) <= KEPT, f"the allocator holds {max(grown) / MB:.0f} MB more"
    # no memory leaks from measurement to measurement
    assert after.in_use[2] - after.in_use[1] <= MB


@needs_cuda("its memory")
def test_what_is_free_is_no_more_than_a_process_may_take():
    whole = torch.cuda.get_device_properties(0).total_memory / MB
    assert 0 < free_megabytes(device()) <= whole
    torch.cuda.set_per_process_memory_fraction(0.25)
    try:
        assert free_megabytes(device()) <= whole / 4
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


class Greedy:
    """Allocates some memory, and then more than there is."""

    def __init__(self):
        self.taken = []  # weak references to the memory of every call

    def __call__(self, output):
        some = torch.ones(64 if on_cuda() else 1, MB, device=device())
        self.taken.append(weakref.ref(some))
        if on_cuda():
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.empty(2 * whole, dtype=torch.uint8, device=device())
        raise torch.OutOfMemoryError("out of memory: so a CPU is made to say")


def in_a_layer(greedy):
    return EquiSeparation(layers={"net.hidden": greedy}, epochs=[1], figures=False)


def in_gradients(greedy):
    return LocalElasticity(outputs=greedy, samples_per_class=2, epochs=[1], figures=False)


@pytest.mark.parametrize("make", [in_a_layer, in_gradients])
def test_a_pass_without_enough_memory_is_skipped_and_gives_it_back(make, tmp_path):
    greedy, before, after = Greedy(), Noting(), Noting()
    callback = make(greedy)
    callbacks = [before, callback, after] if on_cuda() else [callback]
    untouched = trace(*fit(tmp_path, networks.convnet, pictures(), deterministic=True))
    with pytest.warns(RuntimeWarning) as told:
        run, module = fit(tmp_path, networks.convnet, pictures(), callbacks, deterministic=True)
    assert difference(trace(run, module), untouched) is None
    ours = [str(w.message) for w in told if issubclass(w.category, RuntimeWarning)]
    assert len(ours) == 1
    assert "memory" in ours[0]
    assert callback.history == []
    assert greedy.taken
    assert all(reference() is None for reference in greedy.taken)
    if on_cuda():
        assert after.in_use[0] - before.in_use[0] <= KEPT
