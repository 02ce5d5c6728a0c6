"""Where float64 is, and what torch is asked for; see `test_gradient_kernel_unnoticed` for more."""

from argparse import Namespace

import pytest
import torch

from lightning_nc.guards.precision import with_float64


@pytest.mark.parametrize(
    ("kind", "has_fp64", "place"),
    [
        ("cpu", None, "cpu"),
        ("cuda:1", None, "cuda:1"),
        ("mps", None, "cpu"),
        ("xpu:1", True, "xpu:1"),
        ("xpu:1", False, "cpu"),
    ],
)
def test_sums_are_on_the_cpu_if_a_device_has_no_float64(kind, has_fp64, place, monkeypatch):
    of_device = Namespace(has_fp64=has_fp64)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: of_device)
    assert with_float64(torch.device(kind)) == torch.device(place)
