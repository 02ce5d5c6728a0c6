"""What all tests share: warnings are errors, fixed seeds, and two sets of features."""

import importlib
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from tests.functional import cases

# as the processes of distributed tests do: float32 sums depend on the number of threads
torch.set_num_threads(1)

# Warnings that others raise and we cannot avoid: a filter, and whose it is and why.
IGNORED_WARNINGS = [
    "ignore:Guards may run slower on Python 3.13.0",  # of torch, where it compiles a network
]

hypothesis.settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    max_examples=20,
    # function-scoped fixtures here only seed; nothing carries over from example to example
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("deterministic")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    for ignored in IGNORED_WARNINGS:
        config.addinivalue_line("filterwarnings", ignored)


def pytest_collection_modifyitems(items):
    """Start with what takes minutes, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: "test_examples" not in item.path.name)


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def fixed_seeds():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def example(monkeypatch):
    """Imports a module of the examples, which import each other by name."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    return importlib.import_module


@pytest.fixture
def clusters():
    """Features and labels of three well separated classes of unequal size."""
    return cases.clusters((30, 20, 10), d=6, noise=0.3)


@pytest.fixture
def simplex_etf():
    """The rows of a simplex ETF: five unit vectors in seven dimensions, all cosines -1/4."""
    return cases.simplex_etf(5, 7)
