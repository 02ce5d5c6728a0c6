"""Run a module where torch finds a CUDA card, which is a stand-in.

python -m tests.stand_in pytest tests/gpu/test_exact_callbacks.py
"""

import runpy
import sys

from tests.stand_in import building


def main():
    library = building.build()
    building.load_before_torch(library)

    from tests.stand_in import functions

    functions.install(library)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
