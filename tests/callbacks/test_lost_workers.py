"""Worker processes of loaders that die while something is measured."""

import multiprocessing
import os
import signal
from collections import UserList

import pytest
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data._utils import signal_handling

from lightning_nc import NeuralCollapse, Probe
from tests import nets
from tests.callbacks.runs import epochs, loaders, mixed, train

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="signals of POSIX"),
    pytest.mark.filterwarnings(*nets.only_our_warnings),
]


class Killing(nets.Blobs):
    """Data that kill the worker which reads them, or another one of this process."""

    def __init__(self, victims=None):
        super().__init__(augment=False)
        # an object of a library, since lists and objects of a user's own are put back
        self.victims = victims

    def __getitem__(self, index):
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.victims:
            victim = self.victims.pop()
            os.kill(victim, signal.SIGKILL)
            os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT)
        return super().__getitem__(index)


@pytest.fixture(autouse=True)
def handler_of_torch(monkeypatch):
    """Torch sets its handler once, and Lightning takes it away at the end of the first `fit`."""
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)


def with_workers():
    return loaders(
        train_dataloaders=DataLoader(mixed(), 10, num_workers=1, persistent_workers=True)
    )


@pytest.mark.parametrize("data", [loaders, with_workers])
def test_a_worker_of_the_probe_that_is_killed_costs_the_measurement(data, tmp_path):
    probe = Probe(Killing(), "own", num_workers=1)
    callback = NeuralCollapse(probe=probe, epochs=[1], figures=False)
    with pytest.warns(RuntimeWarning, match=r"skipped the measurement .*worker"):
        _, trace = train(tmp_path, [callback], data=data)
    assert (epochs(callback), callback.failures) == ([], 1)
    assert nets.same(trace, train(tmp_path, data=data)[1])


def test_a_worker_of_training_that_is_killed_ends_the_run_after_the_measurement(tmp_path):
    """Not within it, where the error would pass for one of the probe."""
    victims = UserList()

    class Choosing(NeuralCollapse):
        def on_train_epoch_end(self, trainer, pl_module):
            victims.extend(each.pid for each in multiprocessing.active_children())
            super().on_train_epoch_end(trainer, pl_module)

    callback = Choosing(probe=Probe(Killing(victims), "own"), epochs=[1], figures=False)
    with pytest.raises(RuntimeError, match=r"worker .* killed by signal"):
        train(tmp_path, [callback], data=with_workers)
    assert (epochs(callback), callback.failures) == ([1], 0)
