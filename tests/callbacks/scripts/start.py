"""Start scripts as users do, with a deadline for them and for every process that they start."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests import nets

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("train.py")


def run_script(folder, fits, launcher=(), timeout=180, within=(), **environment):
    """Run the training script; its exit code and what it and its children wrote.

    A command may run it within another, such as a network namespace.

    Children inherit the pipes, which end when the last process is gone: one that outlives the
    script makes this fail at the deadline.
    """
    told = json.dumps({"folder": str(folder), "fits": fits})
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore,default::RuntimeWarning",
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    process = subprocess.Popen(
        [*within, sys.executable, *launcher, str(SCRIPT), told],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # torchrun ends its own children
            process.wait(10)
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        process.stdout.close()
        process.stderr.close()
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def warnings_of(done):
    """Lines that begin a warning, of this package; those of others are ignored.

    Lightning leaves out the category where a path has "lightning" in it, as ours has. What is said
    of data as tiny as these is ignored, too.
    """
    found = [line for line in done.stderr.splitlines() if re.match(r"\S+\.py:\d+: ", line)]
    return [line for line in found if not any(re.search(w, line) for w in nets.OF_TINY_DATA)]
