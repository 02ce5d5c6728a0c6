"""Training flags of modules, set inside one ``with`` block."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from lightning_nc.guards.restoring import restoring


@contextmanager
def modes_set(modes: Mapping[nn.Module, bool]) -> Iterator[None]:
    """Set the flags ``training`` of modules, and put them back at the end.

    Only flags are set, since ``.train()`` and ``.eval()`` may run user code (LoRA layers merge
    their weights there).

    Args:
        modes: The flag of each module.
    """
    # all before any is set: a compiled module and the one that it compiles share their flag
    before = {module: module.training for module in modes}
    with restoring() as later:
        for module, training in before.items():
            what = f"the mode of a {type(module).__name__}"
            later(what, setattr, module, "training", training)
        for module, training in modes.items():
            module.training = training
        yield
