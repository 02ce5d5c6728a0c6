"""Time D by thin SVD in the K-dimensional signal space against the papers' d x d pseudo-inverse.

python -m tests.benchmarks.fuzziness_routes
"""

import time

import torch

from lightning_nc.functional import separation_fuzziness

SAMPLES, CLASSES = 1000, 10


def pseudo_inverse_route(features, labels):
    """Tr(SSW SSB^+) as written, in float64."""
    h = features.double()
    n = len(h)
    mu = h.mean(0)
    SSW = SSB = 0
    for k in range(CLASSES):
        own = h[labels == k]
        mu_k = own.mean(0)
        SSW = SSW + (own - mu_k).T @ (own - mu_k) / n
        SSB = SSB + len(own) / n * torch.outer(mu_k - mu, mu_k - mu)
    return torch.trace(SSW @ torch.linalg.pinv(SSB))


def timed(work):
    started = time.perf_counter()
    value = work()
    return float(value), time.perf_counter() - started


def main():
    torch.manual_seed(0)
    print(f"{SAMPLES} samples, {CLASSES} classes, {torch.get_num_threads()} threads\n")
    print("| d | signal space | d x d pseudo-inverse | times faster | relative difference |")
    print("|---|---|---|---|---|")
    for d in (512, 2048, 4096):
        labels = torch.arange(SAMPLES) % CLASSES
        features = torch.randn(SAMPLES, d) + 3 * torch.randn(CLASSES, d)[labels]
        separation_fuzziness(features, labels)  # warm up
        ours, fast = timed(lambda: separation_fuzziness(features, labels))  # noqa: B023 - run at once
        theirs, slow = timed(lambda: pseudo_inverse_route(features, labels))  # noqa: B023
        difference = abs(ours / theirs - 1)
        print(f"| {d} | {fast:.4f} s | {slow:.2f} s | {slow / fast:.0f} | {difference:.0e} |")


if __name__ == "__main__":
    main()
