"""Settings of these tests, which also run where only pytest is installed."""

import os

# set before CUDA starts, since deterministic matrix products are refused without it
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import pytest
import torch

# as in the processes of `together`, since float32 sums depend on the number of threads
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def settings_back():
    """Fix the seeds, and afterwards reset what a test or a Trainer has set in torch."""
    torch.manual_seed(0)
    np.random.seed(0)
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark
