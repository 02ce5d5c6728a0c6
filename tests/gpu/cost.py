"""Time measurements on the device, against a bare forward sweep and a training epoch.

    python -m tests.gpu.cost --rows PATH [--seconds 150]

On a CPU the same code runs at small sizes.
"""

import argparse
import warnings
from functools import partial

import torch

from tests.gpu import subjects
from tests.gpu.cost_of_callbacks import gradients, under_a_trainer
from tests.gpu.cost_of_measuring import Cost
from tests.gpu.device import on_cuda
from tests.gpu.products import product
from tests.gpu.rows import Rows


def sizes(large):
    """Classes, samples and widths of the matrix products in measurements."""
    if large:
        return [(10, 1000, 65_536), (1000, 1000, 2048), (1000, 1000, 150_528)]
    return [(4, 32, 256)]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--rows", required=True, help="file for the rows")
    options.add_argument("--seconds", type=float, default=150, help="time for all rows")
    options.add_argument("--small", action="store_true", help="small sizes even on a GPU")
    chosen = options.parse_args()
    warnings.simplefilter("ignore")
    large = on_cuda() and not chosen.small
    if not on_cuda():
        torch.set_num_threads(1)
    rows = Rows(chosen.rows, chosen.seconds)
    measured = subjects.large() if large else subjects.small()
    for classes, samples, width in sizes(large):
        name = f"{classes} classes, {samples} samples of width {width}"
        work = partial(product, classes, samples, width)
        rows.add("float64", name, "sums of classes", work)
    for number, subject in enumerate(measured):
        Cost(rows, subject).add_all()
        if number == 0:
            gradients(rows, subject, samples=50 if large else 6)
            under_a_trainer(rows, subject, batches=60 if large else 2)


if __name__ == "__main__":
    main()
