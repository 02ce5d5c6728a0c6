"""Sets of features that tests measure: torch tensors, and the same numbers for the reference."""

import numpy as np
import torch

from tests.fashion_mnist import fashion_mnist


def labels_of(counts, generator):
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    return labels[torch.randperm(len(labels), generator=generator)]


def clusters(
    counts, d, noise, spread=1.0, offset=0.0, condition=None, aligned=False, seed=0, dtype=None
):
    """Classes about random means; with `condition`, sample means have that condition number.

    Noise is isotropic, or with `aligned` as large along each direction as the means are.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = labels_of(counts, generator)
    means = torch.randn(len(counts), d, generator=generator, dtype=torch.float64)
    r = torch.randn(len(labels), d, generator=generator, dtype=torch.float64)
    if condition is not None:
        U, s, Vh = torch.linalg.svd(means - means.mean(0), full_matrices=False)
        s = torch.logspace(0, -np.log10(condition), len(counts) - 1, dtype=torch.float64)
        U, Vh = U[:, : len(s)], Vh[: len(s)]
        means = U * s @ Vh
        for k in range(len(counts)):
            r[labels == k] -= r[labels == k].mean(0)
        if aligned:
            r = r @ Vh.mT * s @ Vh
    features = offset + spread * means[labels] + noise * r
    return features.to(dtype or torch.float64), labels


def simplex_etf(K, d):
    """K unit vectors in d dimensions with all cosines -1/(K-1)."""
    basis, _ = torch.linalg.qr(torch.randn(d, K, dtype=torch.float64))
    return ((K / (K - 1)) ** 0.5 * basis @ (torch.eye(K) - 1 / K).double()).mT


def numpy(*tensors):
    """What the reference is given: the same, already rounded, numbers in float64."""
    return [t.double().numpy() if t.is_floating_point() else t.numpy() for t in tensors]


def fashion_pixels(counts):
    images, labels = fashion_mnist("train", max(counts))
    kept = torch.cat([(labels == k).nonzero().flatten()[:n] for k, n in enumerate(counts)])
    return images[kept].flatten(1), labels[kept]


def fashion_features(counts, d=96):
    """A random ReLU layer on the pixels, in float32."""
    pixels, labels = fashion_pixels(counts)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(pixels.shape[1], d, generator=generator) / pixels.shape[1] ** 0.5
    return (pixels @ weight).relu(), labels


BALANCED, IMBALANCED = (12,) * 10, (30, 25, 20, 16, 13, 10, 8, 6, 4, 2)

FASHION = {
    "balanced pixels": lambda: fashion_pixels(BALANCED),
    "imbalanced pixels": lambda: fashion_pixels(IMBALANCED),
    "balanced features": lambda: fashion_features(BALANCED),
    "imbalanced features": lambda: fashion_features(IMBALANCED),
}

# Well-conditioned sets, on which the d x d formulas in float64 are exact enough to decide.
PLAIN = {
    "balanced": lambda: clusters((20, 20, 20), 5, 0.3),
    "imbalanced": lambda: clusters((40, 9, 2, 1), 7, 0.3),
    "two classes": lambda: clusters((12, 5), 4, 0.5),
    "more classes than dimensions": lambda: clusters((6,) * 9, 3, 0.5),
    "more classes than dimensions, imbalanced": lambda: clusters((12, 9, 6, 4, 3, 2), 2, 0.5),
    "more dimensions than samples": lambda: clusters((4, 3, 2), 40, 0.3),
    "many columns": lambda: clusters((250, 150), 700, 0.3, dtype=torch.float32),
    "far off": lambda: clusters((20, 10, 5), 6, 0.3, offset=30.0),
}

# Sets on which they are not; `tests.precise` decides.
HARD = {
    "collapsed": lambda: clusters((20, 12, 7), 8, 1e-6),
    "collapsed, imbalanced": lambda: clusters((60, 12, 2, 1), 8, 1e-6),
    "collapsed and far off": lambda: clusters((20, 12, 7), 8, 1e-6, offset=30.0),
    "offset 30, spread 1e-3": lambda: clusters((20, 12, 7), 8, 0.3, spread=1e-3, offset=30.0),
    "offset 30, means and noise 1e-3": lambda: clusters(
        (10, 10, 10, 10), 8, 1e-3, spread=1e-3, offset=30.0
    ),
    "offset 30, means and noise 1e-3, imbalanced": lambda: clusters(
        (30, 10, 5, 2), 8, 1e-3, spread=1e-3, offset=30.0
    ),
    "offset 30, means and noise 1e-3, float32": lambda: clusters(
        (30, 10, 5, 2), 8, 1e-3, spread=1e-3, offset=30.0, dtype=torch.float32
    ),
    "offset 30, more classes than dimensions": lambda: clusters(
        (8,) * 6, 3, 1e-3, spread=1e-3, offset=30.0
    ),
    "condition 1e4": lambda: clusters((12, 9, 7, 5), 9, 0.3, condition=1e4),
    "condition 1e4, aligned noise": lambda: clusters(
        (12, 9, 7, 5), 9, 0.1, condition=1e4, aligned=True
    ),
    "float16": lambda: clusters((20, 10, 5), 6, 0.3, dtype=torch.float16),
    "bfloat16": lambda: clusters((20, 10, 5), 6, 0.3, offset=30.0, dtype=torch.bfloat16),
    "float32": lambda: clusters((20, 10, 5), 6, 0.3, offset=30.0, dtype=torch.float32),
}
