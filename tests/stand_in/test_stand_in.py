"""The checks that need a card, on a stand-in for one."""

import pytest

from tests.programs import ROOT, run_python
from tests.stand_in import building

REASON = building.reason_against()
CHECKS = ROOT / "tests" / "gpu"
# what runs on one card by itself; the stand-in has no kernels for torch to compile, and no sparse
# tensors
FILES = (
    "test_device.py",
    "test_exact_functions.py",
    "test_exact_callbacks.py",
    "test_many_classes.py",
    "test_unobtrusive.py",
    "test_memory.py",
    "test_deterministic.py",
    "test_waits.py",
    "test_several_devices.py",
)
LEFT_OUT = "not inductor and not graphs and not sparse"


@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_what_is_checked_on_a_card_holds_on_the_stand_in():
    bare = ["-q", "-rs", "-o", "addopts=", f"--confcutdir={CHECKS}", "-p", "no:cacheprovider"]
    files = [CHECKS / name for name in FILES]
    found = run_python("-m", "tests.stand_in", "pytest", *bare, "-k", LEFT_OUT, *files)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert "passed" in found.stdout
    assert "no CUDA device" not in found.stdout
