"""CPU time and modules that importing parts of the package costs, each in a process of its own.

Run as ``python -m tests.benchmarks.imports [CHECKOUT]``, where the folder of another commit can be
given. ``import torch`` beside is the least that the formulas can take, ``import pytorch_lightning``
the least that callbacks can.
"""

import sys

from tests.programs import ROOT, run_python

STATEMENTS = [
    "import torch",
    "import pytorch_lightning",
    "import lightning_nc",
    "import lightning_nc.functional",
    "from lightning_nc import measure",
    "import lightning_nc.metrics",
    "from lightning_nc import NeuralCollapse",
    "import lightning_nc.__main__",
]
REPEATS = 3


def cost(statement, folder):
    """CPU seconds, the least of a few processes, and the number of modules loaded."""
    program = (
        f"import sys, time\nbefore = len(sys.modules)\nstarted = time.process_time()\n{statement}\n"
        "print(time.process_time() - started, len(sys.modules) - before)"
    )
    found = []
    for _ in range(REPEATS):
        run = run_python("-W", "ignore", "-c", program, cwd=folder)
        run.check_returncode()
        seconds, modules = run.stdout.split()
        found.append((float(seconds), int(modules)))
    return min(found)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else ROOT
    print("| statement | s of CPU | modules |\n|---|---|---|")
    for statement in STATEMENTS:
        seconds, modules = cost(statement, folder)
        print(f"| `{statement}` | {seconds:.2f} | {modules} |", flush=True)


if __name__ == "__main__":
    main()
