"""Gradient checkpoints, run as the functions that they wrap."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import CheckpointFunction


@contextmanager
def gradient_checkpoints_off() -> Iterator[None]:
    """Let ``torch.utils.checkpoint.checkpoint(..., use_reentrant=True)`` only call its function.

    It computes the same outputs, but hides the autograd graph of what runs inside, in which blocks
    are found, and refuses gradients that are taken for some tensors alone.
    """
    reentrant: Any = CheckpointFunction
    before = vars(reentrant).get("apply")  # None: that of its base class
    reentrant.apply = staticmethod(_only_call)
    try:
        yield
    finally:
        if before is None:
            del reentrant.apply
        else:
            reentrant.apply = before


def _only_call(function: Callable[..., Any], _preserve_rng_state: bool, *args: Any) -> Any:
    return function(*args)
