"""A program on LightningCLI as users write it; its first argument is the namespace."""

import importlib
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from tests import nets


def cli_of(namespace, arguments=None, **options):
    """LightningCLI of a namespace, with a tiny module and its data."""
    cli = importlib.import_module(f"{nets.NAMESPACES[namespace].__name__}.cli")
    base = nets.UnifiedClassifier if namespace == "lightning" else nets.Classifier

    class Module(base):
        def __init__(self):
            super().__init__(freeze=0)

        def train_dataloader(self):
            return DataLoader(nets.vectors(), 10)

        def val_dataloader(self):
            return DataLoader(nets.vectors(seed=2), 10)

    return cli.LightningCLI(Module, args=arguments, **options)


if __name__ == "__main__":
    namespace = sys.argv.pop(1)
    trainer = cli_of(namespace).trainer
    measured = [callback for callback in trainer.callbacks if hasattr(callback, "history")]
    states = {callback.state_key: callback.state_dict() for callback in measured}
    torch.save(states, Path(trainer.default_root_dir) / "states.pt")
