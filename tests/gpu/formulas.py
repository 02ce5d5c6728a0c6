"""More formulas, each of a `Given`; like those of `expected`, slow and on the CPU."""

import torch

from lightning_nc import functional
from tests.gpu import expected


def simplex_symmetry(x):
    y, K = x.means, len(x.means)
    pairs = [(i, j) for i in range(K) for j in range(i)]
    distances = torch.stack([(y[i] - y[j]).norm() for i, j in pairs])
    corners = [(y[i] - y[k]) @ (y[k] - y[j]) for i, j in pairs for k in range(K) if k not in (i, j)]
    m = expected.centred(y)
    span = torch.linalg.svd(m, full_matrices=False).Vh[: K - 1]
    cosines = torch.nn.functional.cosine_similarity(x.weight, m)
    return (
        expected.spread(distances),
        expected.spread(torch.stack(corners)),
        y.mean(0).norm() / y.square().sum(1).mean().sqrt(),
        expected.spread(torch.linalg.svdvals(x.weight @ span.T)),
        1 - cosines.mean(),
    )


def simplex_plane(x):
    """Means and rows, turned to the corners of a triangle by the orthogonal part of M^T corners."""
    M, W = (expected.centred(v[:3]) for v in (x.means, x.weight))
    phi = torch.pi * (0.5 + 2 * torch.arange(3).double() / 3)
    corners = torch.stack([phi.cos(), phi.sin()], 1)
    turn = M.T @ corners
    values, vectors = torch.linalg.eigh(turn.T @ turn)
    turn = turn @ vectors @ torch.diag(values.rsqrt()) @ vectors.T
    return tuple(v @ turn / v.norm(dim=1).mean() for v in (M, W))


def class_geometry(x):
    h, y = x.features, x.labels
    squares = expected.residuals(h, y).square().sum(1)
    of_samples = (
        expected.squares_along(h, y, expected.shares(y)),
        expected.squares_along(h, y, expected.equal_shares(y)),
        squares,
    )
    rank = torch.tensor(len(x.means) - 1)
    sums = (expected.by_class(each, y) for each in of_samples)
    return expected.class_counts(y), expected.class_means(h, y), rank, *sums


def moments(x):
    r = expected.residuals(x.features, x.labels)
    squares = expected.by_class(r.square().sum(1), x.labels)
    counts, means = class_geometry(x)[:2]
    return counts, means, squares, r.T @ r


def pair_features(x):
    """The three features of each pair, shape (n, n, 3)."""
    distances = (x.features[:, None] - x.features).square().sum(2)
    return torch.stack([x.features @ x.features.T, distances, x.kernel], 2)


def ridge(F, t, strength):
    identity = torch.eye(F.shape[1], dtype=torch.float64)
    return torch.linalg.solve(F.T @ F + strength * identity, F.T @ t)


def fit_pair_features(x):
    pairs = ~torch.eye(len(x.labels), dtype=torch.bool)
    z, t = pair_features(x)[pairs], torch.outer(x.signs, x.signs).double()[pairs]
    s = z.std(0, correction=0)
    beta = ridge((z - z.mean(0)) / s, t - t.mean(), 1e-3 * len(z)) / s
    return t.mean() - z.mean(0) @ beta + pair_features(x) @ beta


def fit_random_features(x):
    """The coefficients for the random features that were drawn."""
    drawn = functional.fit_random_features(x.features, x.signs, num_features=24)
    phi = (x.features @ drawn.directions.T + drawn.offsets).relu()
    phi = phi - phi.mean(0)
    pairs = ~torch.eye(len(phi), dtype=torch.bool)
    z = (phi[:, None] * phi)[pairs]
    A = z.T @ z
    t = torch.outer(x.signs, x.signs).double()[pairs]
    return ridge(z, t, 0.1 * A.diagonal().mean())


def label_aware_kernel(x):
    K, Z = x.kernel, 0.5 * torch.outer(x.signs, x.signs).double()
    return K / (K.diagonal()[:, None] * K.diagonal()).sqrt() + Z + torch.diag(1 - Z.diagonal())
