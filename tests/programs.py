"""Programs in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_python(*command, cwd=ROOT, timeout=600, **environment):
    """Run Python where the package can be imported; return how it ended, and what it said.

    It has one thread: tests run side by side, and threads that wait for a core cost more than they
    do.
    """
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | own | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
