"""A measurement that is broken off at any point leaves everything as it was."""

import inspect
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn
from torch.utils.data import DataLoader

import lightning_nc
from lightning_nc import Probe, measure
from lightning_nc.measures.rows import Rows
from tests import nets
from tests.snapshots import changes, snapshot

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = str(Path(lightning_nc.__file__).parent)


class Interrupted(Exception):
    pass


@contextmanager
def profiled(handle):
    """Call ``handle(code)`` at the start of each function of the package inside the block."""

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            handle(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)


def starts(action):
    """Every function of the package that runs in an action, and the first and last of its calls.

    Those of generators are the places where they go on: in a ``with``, after its block. Before
    Python 3.11, what a profiler raises there ends a generator without its ``finally``, as no other
    interruption does.
    """
    calls = Counter()
    with profiled(lambda code: calls.update([code])):
        action()
    return [
        (code, number)
        for code, count in calls.items()
        for number in sorted({1, count})
        if not code.co_name.startswith("<")  # within functions
        and (sys.version_info >= (3, 11) or not code.co_flags & inspect.CO_GENERATOR)
    ]


def raise_at(code, number, error, action):
    """Run an action, in which a call of a function fails; whether it came to that."""
    left = [number]

    def fail(current):
        left[0] -= current is code
        if current is code and left[0] == 0:
            raise error

    with suppress(Interrupted, KeyboardInterrupt), profiled(fail):
        action()
    return left[0] <= 0


def assert_restored_wherever_it_fails(action, look):
    """First calls fail with an error, last ones are interrupted."""
    places = starts(action)
    assert len({code for code, _ in places}) > 60
    broken = {}
    for code, number in places:
        before, error = look(), Interrupted if number == 1 else KeyboardInterrupt
        assert raise_at(code, number, error, action), code.co_name
        if changed := changes(before, look()):
            broken[f"call {number} of {code.co_name}"] = changed
    assert broken == {}


def convnet():
    net = nets.convnet()
    net.insert(3, nn.Dropout())
    net[1].eval()  # frozen by the user
    net[0].bias.requires_grad_(False)
    net.insert(4, nets.Observer())
    net.noise = torch.Generator().manual_seed(1)
    net[4].register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_norm": "batch", "cache_mb": 0}],
    ids=["features kept", "two sweeps of batch statistics"],
)
def test_measure_leaves_no_trace_wherever_it_fails(options):
    net, data = convnet(), nets.images()
    data.rng = torch.Generator().manual_seed(2)
    nn.functional.cross_entropy(net(data.tensors[0]), data.tensors[1]).backward()
    probe = Probe(data, "data", batch_size=16, samples_per_class=8, **options)
    assert_restored_wherever_it_fails(lambda: measure(net, probe), lambda: snapshot(net, data.rng))


OF_GRADIENTS = [kind for kind in nets.CALLBACKS if kind not in nets.GEOMETRY]


@pytest.mark.parametrize("kinds", [nets.GEOMETRY, OF_GRADIENTS], ids=["geometry", "gradients"])
def test_callbacks_that_share_a_pass_leave_no_trace_wherever_it_fails(kinds, tmp_path):
    class Repeating(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            def measure_anew():
                for record in (each.record for each in callbacks):
                    record.rows = Rows()
                    record.measured.clear()
                    record.skipped.clear()
                    record.plans.clear()
                with torch.inference_mode():
                    callbacks[0].on_train_epoch_end(trainer, pl_module)

            assert any(p.grad is not None for p in pl_module.parameters())
            assert any(m.training for m in pl_module.modules())
            assert_restored_wherever_it_fails(measure_anew, lambda: snapshot(pl_module, data.rng))
            measure_anew()
            measured.extend(each.history[-1].epochs_completed for each in callbacks)

    measured, data = [], nets.Blobs()
    callbacks = [kind(epochs=[1], figures=False) for kind in kinds]
    run = nets.trainer(tmp_path, [*callbacks, Repeating()], max_epochs=1, accumulate_grad_batches=4)
    run.fit(nets.Classifier(), DataLoader(data, 7))  # validation would drop gradients
    assert measured == [1] * len(kinds)


def test_the_comparison_notices_what_is_not_put_back():
    net = convnet()
    before = snapshot(net)
    net[4](torch.zeros(1))
    net[1].train()
    net.noise.manual_seed(5)
    net[0].bias.requires_grad_(True)
    net[-1].weight.grad = torch.zeros_like(net[-1].weight)
    net[2].register_forward_hook(lambda *_: None)
    found = changes(before, snapshot(net))
    expected = {".noise", "0._parameters.bias", "1.training", "2._forward_hooks"}
    assert expected | {"4._buffers.runs", "9.weight.grad"} <= set(found)
