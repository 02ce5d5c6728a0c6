"""How often the host would wait for a card: as often per batch, however many layers there are."""

from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset

import lightning_nc

aten = torch.ops.aten
WAITING = (aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero)


class Operations(TorchDispatchMode):
    """Counts the operations whose result the host reads."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in WAITING
        return func(*args, **(kwargs or {}))


class Lists(TorchFunctionMode):
    """Counts tensors that are read as a whole, without an operation."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu)
        return func(*args, **(kwargs or {}))


def waits(layers, batches, cache_mb, classes=3):
    """How often a measurement of some layers and batches waits."""
    hidden = [layer for _ in range(layers) for layer in (nn.Linear(6, 6), nn.Tanh())]
    model = nn.Sequential(*hidden, nn.Linear(6, classes)).double().eval()
    labels = torch.arange(12 * batches) % classes
    data = TensorDataset(torch.randn(len(labels), 6).double() + labels[:, None], labels)
    probe = lightning_nc.Probe(data, "p", samples_per_class=None, batch_size=12, cache_mb=cache_mb)
    with ExitStack() as modes:
        counts = [modes.enter_context(mode) for mode in (Operations(), Lists())]
        lightning_nc.measure(model, probe, layers=["*[13579]"])
    return sum(each.count for each in counts)


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_what_a_batch_waits_for_does_not_depend_on_the_number_of_layers(cache_mb):
    found = {(n, b): waits(n, b, cache_mb) for n in (3, 6) for b in (2, 6)}
    by_batch = {n: (found[n, 6] - found[n, 2]) / 4 for n in (3, 6)}
    assert by_batch[3] == by_batch[6]
    assert by_batch[3] <= (8 if cache_mb == 0 else 5)  # labels, most of them on the CPU
    by_layer = {b: (found[6, b] - found[3, b]) / 3 for b in (2, 6)}
    assert by_layer[2] == by_layer[6] <= 4  # once in a measurement
