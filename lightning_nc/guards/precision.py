"""Full float32 precision for a while, however torch was set to reduce it."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch

from lightning_nc.guards.restoring import restoring

_BACKENDS = {
    "cuda": ("cuda.matmul", "cudnn.conv", "cudnn.rnn"),
    "cpu": ("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"),
}


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute float32 products in full float32 on a device, and restore torch's settings."""
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch >= 2.9
        backends = [attrgetter(name)(torch.backends) for name in _BACKENDS.get(device.type, ())]
        asked = [(backend, backend.fp32_precision) for backend in backends]
        with restoring() as later:
            for backend, precision in asked:
                if precision not in ("none", "ieee"):
                    later("torch's precision", _ask, backend, precision)
                    backend.fp32_precision = "ieee"
            yield
        return
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with restoring() as later:
        later("torch's precision", torch.set_float32_matmul_precision, precision)
        later("torch's precision", setattr, torch.backends.cudnn, "allow_tf32", tf32)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield


def _ask(backend: Any, precision: str) -> None:
    """Set a precision, by inheritance where possible, so that later global changes still apply."""
    backend.fp32_precision = "none"
    if backend.fp32_precision != precision:
        backend.fp32_precision = precision
