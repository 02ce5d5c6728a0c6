"""The checks that need a card or MPS, on a stand-in for one."""

import pytest

from tests.programs import ROOT, run_python
from tests.stand_in import building

REASON = building.reason_against()
CHECKS, CHECKS_ON_MPS = ROOT / "tests" / "gpu", ROOT / "tests" / "mps"
# what runs on one card by itself; the stand-in has no kernels for torch to compile, no sparse
# tensors, and not cuDNN, which packed sequences need
FILES = (
    "test_device.py",
    "test_exact_functions.py",
    "test_exact_callbacks.py",
    "test_many_classes.py",
    "test_notes.py",
    "test_unobtrusive.py",
    "test_projects.py",
    "test_memory.py",
    "test_deterministic.py",
    "test_waits.py",
    "test_several_devices.py",
)
LEFT_OUT = "not inductor and (not graphs or Molecules) and not sparse and not packed"


@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_what_is_checked_on_a_card_holds_on_the_stand_in():
    passed = checked("-k", LEFT_OUT, *(CHECKS / name for name in FILES), confined_to=CHECKS)
    assert "no CUDA device" not in passed


@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_what_is_checked_on_mps_holds_on_the_stand_in():
    chosen = "-k", "not sparse", CHECKS_ON_MPS
    passed = checked(*chosen, confined_to=CHECKS_ON_MPS, options=["--mps"])
    assert "no MPS device" not in passed


def checked(*tests, confined_to, options=()):
    bare = ["-q", "-rs", "-o", "addopts=", f"--confcutdir={confined_to}", "-p", "no:cacheprovider"]
    found = run_python("-m", "tests.stand_in", *options, "pytest", *bare, *tests)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert "passed" in found.stdout
    return found.stdout
