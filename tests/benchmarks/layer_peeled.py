"""Time the solution of the layer-peeled model: ``python -m tests.benchmarks.layer_peeled``."""

import time

from lightning_nc.theory import critical_imbalance, layer_peeled_model

CASES = {
    "K = 10 in two groups": [500] * 5 + [5] * 5,
    "K = 1000 in two groups": [500] * 300 + [5] * 700,
    "K = 100, long-tailed, ten groups": [5000 * 0.01 ** (k / 99) for k in range(100)],
}


def seconds(solve):
    """The median time of five solutions."""
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        solve()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[2]


if __name__ == "__main__":
    layer_peeled_model([2, 1], 1, 1)  # imports the solver
    for name, counts in CASES.items():
        print(f"{name:36} {seconds(lambda counts=counts: layer_peeled_model(counts, 1, 10)):.3f} s")
    print(f"{'R_0 of K_A = K_B = 5':36} {seconds(lambda: critical_imbalance(5, 5, 1, 5)):.3f} s")
