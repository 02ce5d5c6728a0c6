"""The device under test, and a mark for tests that need CUDA."""

from contextlib import contextmanager

import pytest
import torch

# warnings of others are not our concern; this package's warnings are errors
only_our_warnings = pytest.mark.filterwarnings("ignore", "error::RuntimeWarning")


def on_cuda():
    return torch.cuda.is_available()


def device():
    return torch.device("cuda", 0) if on_cuda() else torch.device("cpu")


def of_trainer():
    """Options that make a Trainer run on the device."""
    return {"accelerator": "gpu" if on_cuda() else "cpu", "devices": 1}


def needs_cuda(what):
    return pytest.mark.skipif(not on_cuda(), reason=f"no CUDA device: {what}")


def finish():
    """Wait until the device has finished all its work."""
    if on_cuda():
        torch.cuda.synchronize()


@contextmanager
def tensor_float_32(allowed):
    """Allow or forbid rounding float32 products to TF32 inside the block."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
