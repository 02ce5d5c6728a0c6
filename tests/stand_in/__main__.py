"""Run a module where torch finds a CUDA card, or Apple's MPS, which is a stand-in.

python -m tests.stand_in pytest tests/gpu/test_exact_callbacks.py
python -m tests.stand_in --mps pytest tests/mps
"""

import runpy
import sys

from tests.stand_in import building


def main():
    as_mps = sys.argv[1] == "--mps"
    library = building.build(*["-DAPPLE"] if as_mps else [])
    building.load_before_torch(library)

    from tests.stand_in import functions, functions_of_mps

    (functions_of_mps if as_mps else functions).install(library)
    sys.argv = sys.argv[1 + as_mps :]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
