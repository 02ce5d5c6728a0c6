"""Full float32 precision, however torch was set to reduce it, and devices without float64."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import Any

import torch

from lightning_nc.guards.restoring import restoring

_BACKENDS = attrgetter(
    *("cuda.matmul", "cudnn.conv", "cudnn.rnn"),
    *("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"),
)
_WHAT = "torch's precision"


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products in full float32 on all devices, and restore torch's settings."""
    with restoring() as later:
        if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch < 2.9
            _forbid_by_older_settings(later)
            yield
            return
        asked = [(backend, backend.fp32_precision) for backend in _BACKENDS(torch.backends)]
        _forbid_by_older_settings(later)  # restored first, since they set the others
        for backend, precision in asked:
            later(_WHAT, _ask, backend, precision)
            if backend.fp32_precision not in ("none", "ieee"):
                backend.fp32_precision = "ieee"
        yield


def with_float64(device: torch.device) -> torch.device:
    """The device itself, or the CPU if it has no float64, as Apple's and some of Intel's."""
    lacks = device.type == "mps" or (
        device.type == "xpu" and not torch.xpu.get_device_properties(device).has_fp64
    )
    return torch.device("cpu") if lacks else device


def _forbid_by_older_settings(later: Callable[..., None]) -> None:
    """Forbid TF32 by those settings that torch refuses to read where the newer ones differ.

    A network may read them in its forward pass, as `torch.backends.cudnn.flags` does.
    """
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with suppress(RuntimeError):  # they differ already
        precision = products.allow_tf32 and torch.get_float32_matmul_precision()
        if precision:
            later(_WHAT, torch.set_float32_matmul_precision, precision)
            torch.set_float32_matmul_precision("highest")
    with suppress(RuntimeError):
        if cudnn.allow_tf32:
            later(_WHAT, setattr, cudnn, "allow_tf32", True)
            cudnn.allow_tf32 = False


def _ask(backend: Any, precision: str) -> None:
    """Set a precision, by inheritance where possible, so that later global changes still apply."""
    if backend.fp32_precision == precision:  # not set, or put back by an older setting
        return
    backend.fp32_precision = "none"
    if backend.fp32_precision != precision:
        backend.fp32_precision = precision
