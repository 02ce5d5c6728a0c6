"""What these tests share, also where nothing but pytest is there to run them."""

import os

# before CUDA starts: without it deterministic matrix products are refused
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import pytest
import torch

# as the processes of `together` do: float32 sums depend on the number of threads
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def settings_back():
    """Fixed seeds; and afterwards no setting of torch that a test or a Trainer has made."""
    torch.manual_seed(0)
    np.random.seed(0)
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark
