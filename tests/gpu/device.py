"""The device under test, and what is left out without one."""

from contextlib import contextmanager

import pytest
import torch

# what others warn about is not our concern, what this package warns about is an error
only_our_warnings = pytest.mark.filterwarnings("ignore", "error::RuntimeWarning")


def on_cuda():
    return torch.cuda.is_available()


def device():
    return torch.device("cuda", 0) if on_cuda() else torch.device("cpu")


def of_trainer():
    """What a Trainer is told to run there."""
    return {"accelerator": "gpu" if on_cuda() else "cpu", "devices": 1}


def needs_cuda(what):
    return pytest.mark.skipif(not on_cuda(), reason=f"no CUDA device: {what}")


def finish():
    """Wait until all that was asked of the device is done."""
    if on_cuda():
        torch.cuda.synchronize()


@contextmanager
def tensor_float_32(allowed):
    """Let float32 products be rounded to TF32 inside the block, or not."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
