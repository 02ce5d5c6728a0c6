"""Training flags of modules, set inside one ``with`` block."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_set(modes: Mapping[nn.Module, bool]) -> Iterator[None]:
    """Set the flags ``training`` of modules, and put them back at the end.

    Only flags are set, since ``.train()`` and ``.eval()`` may run user code (LoRA layers merge
    their weights there).

    Args:
        modes: The flag of each module.
    """
    before = {module: module.training for module in modes}
    try:
        for module, training in modes.items():
            module.training = training
        yield
    finally:
        for module, training in before.items():
            module.training = training
