"""A process that ends after the first one, and with it the store they met in, is quiet."""

import os
import socket
import time

import pytest
import torch
from pytorch_lightning import Callback
from torch.utils.data import DataLoader

from lightning_nc import EquiSeparation, NeuralCollapse
from tests import nets
from tests.callbacks.processes_of_lightning import join

pytestmark = pytest.mark.slow


class WaitForTheFirst(Callback):
    """Lets the second process wait at the end of training until the first has ended."""

    def __init__(self, ended):
        self.ended = ended

    def on_train_end(self, trainer, pl_module):
        until = time.monotonic() + 60
        while not (trainer.is_global_zero or self.ended.exists()):
            assert time.monotonic() < until, "the first process does not end"
            time.sleep(0.01)


def train(folder, rank, world, port):
    """Train as one of the processes of which the first holds the store, as launchers do."""
    # torch writes there without Python
    os.dup2(os.open(folder / f"written-{rank}", os.O_CREAT | os.O_WRONLY), 2)
    torch.set_num_threads(1)
    join(rank, world)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=world)
    never = EquiSeparation(epochs=[9], figures=False)
    used = [NeuralCollapse(figures=False), never, WaitForTheFirst(folder / "ended")]
    run = nets.trainer(folder, used, strategy="ddp", devices=world)
    run.fit(nets.Classifier(freeze=0), DataLoader(nets.vectors(), 5))
    (folder / f"measured-{rank}").write_text(str(len(used[0].history)))


def test_nothing_is_written_in_the_store_when_the_first_process_may_be_gone(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_nc", "tests.nets"])
    children = [context.Process(target=train, args=(tmp_path, rank, 2, port)) for rank in (0, 1)]
    try:
        for child in children:
            child.start()
        children[0].join(60)
        (tmp_path / "ended").touch()
        children[1].join(60)
        assert [child.exitcode for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
            child.join()
    assert [(tmp_path / f"measured-{rank}").read_text() for rank in (0, 1)] == ["3", "3"]
    assert "TCPStore" not in (tmp_path / "written-1").read_text()
