"""The quantities from their formulas, with d x d matrices in float64 on the CPU.

No code is shared with the package. Features ``h`` have shape (N, d), labels ``y`` shape (N,); every
class is present.
"""

import torch
from torch.nn.functional import normalize


def class_counts(y):
    return torch.stack([(y == k).sum() for k in range(int(y.max()) + 1)]).double()


def class_means(h, y):
    return torch.stack([h[y == k].mean(0) for k in range(int(y.max()) + 1)])


def residuals(h, y):
    return h - class_means(h, y)[y]


def centred(means):
    return about(means, torch.full((len(means),), 1 / len(means), dtype=torch.float64))


def about(means, weights):
    """Class means minus their weighted mean, subtracted twice since the first one is rounded."""
    once = means - weights @ means
    return once - weights @ once


def inverse_between(means, weights):
    """The pseudo-inverse of the covariance between classes."""
    m = about(means, weights)
    return torch.linalg.pinv(m.T @ torch.diag(weights) @ m, rtol=1e-11, hermitian=True)


def squares_along(h, y, weights):
    """r^T B^+ r of each sample, with its residual r and the covariance B between classes."""
    r = residuals(h, y)
    return torch.einsum("ni,ij,nj->n", r, inverse_between(class_means(h, y), weights), r)


def shares(y):
    return class_counts(y) / len(y)


def equal_shares(y):
    return torch.full_like(class_counts(y), 1 / len(class_counts(y)))


def by_class(numbers, y):
    return torch.stack([numbers[y == k].sum() for k in range(int(y.max()) + 1)])


def fuzziness(h, y):
    return squares_along(h, y, shares(y)).mean()


def class_fuzziness(h, y):
    return by_class(squares_along(h, y, shares(y)), y) / class_counts(y)


def law(D):
    """rho, intercept, r and half-life of the least-squares line of ln D."""
    t = torch.arange(len(D), dtype=torch.float64)
    line = torch.linalg.lstsq(torch.stack([t, torch.ones_like(t)], 1), D.log()[:, None]).solution
    slope, intercept = line.flatten()
    r = torch.corrcoef(torch.stack([t, D.log()]))[0, 1]
    return slope.exp(), intercept, r, -torch.log(torch.tensor(2.0).double()) / slope


def nc1(h, y):
    return squares_along(h, y, equal_shares(y)).mean() / len(class_counts(y))


def equinorm(vectors):
    norms = vectors.square().sum(1).sqrt()
    return norms.std() / norms.mean()


def pair_cosines(vectors):
    units = normalize(vectors, dim=1, eps=0)
    return torch.stack([units[i] @ units[j] for i in range(len(units)) for j in range(i)])


def equiangularity(vectors):
    return pair_cosines(vectors).std(correction=0)


def maximal_angle(vectors):
    return (pair_cosines(vectors) + 1 / (len(vectors) - 1)).abs().mean()


def uniformity(vectors):
    units = vectors.double() / vectors.double().norm(dim=1, keepdim=True)
    pairs = [(units[i] - units[j]).norm().log() for i in range(len(units)) for j in range(i)]
    return torch.stack(pairs).std(correction=0)


def uniform_duality(means, weight):
    return torch.cosine_similarity(centred(means), weight.double()).std(correction=0)


def etf_error(means):
    K, G = len(means), centred(means) @ centred(means).T
    simplex = (torch.eye(K, dtype=torch.float64) - 1 / K) / (K - 1) ** 0.5
    return (G / G.norm() - simplex).norm()


def nc3(means, weight):
    return (weight / weight.norm() - centred(means) / centred(means).norm()).square().sum()


def decisions(h, weight, bias):
    return (h @ weight.T + bias).argmax(1)


def nc4(h, y, weight, bias):
    distances = (h[:, None] - class_means(h, y)).square().sum(2)
    return (decisions(h, weight, bias) != distances.argmin(1)).double().mean()


def cdnv(h, y):
    means, v = class_means(h, y), by_class(residuals(h, y).square().sum(1), y) / class_counts(y)
    pairs = [(i, j) for i in range(len(v)) for j in range(i)]
    return torch.stack(
        [(v[i] + v[j]) / (2 * (means[i] - means[j]).square().sum()) for i, j in pairs]
    ).mean()


def prediction_residual(h, tokens):
    h = (h - h.mean(1, keepdim=True)) / h.std(1, correction=0, keepdim=True)
    y = tokens.to(h)[:, None]
    A = torch.cat([torch.ones_like(y), h], 1)
    rest = y - A @ torch.linalg.lstsq(A, y, driver="gelsd").solution
    return rest.square().sum() / (y - y.mean()).square().sum()


def mean_cosine(vectors, members):
    return pair_cosines(vectors[list(members)]).mean()


def spread(x):
    return x.std(correction=0) / x.mean().abs()


def gradients(model, x, chosen=None):
    """d f_c(x_i) / dw, shape (m, C, P), by a backward pass for each sample and output."""
    weights = [p for n, p in model.named_parameters() if chosen is None or n in chosen]
    rows = []
    for sample in x:
        f = model(sample[None]).flatten()
        found = [torch.autograd.grad(c, weights, retain_graph=True) for c in f]
        rows.append(torch.stack([torch.cat([g.flatten() for g in each]) for each in found]))
    return torch.stack(rows)


def kernel(g):
    return torch.einsum("acp,bcp->ab", g, g)


def loss_gradients(f, y):
    """Gradients of cross-entropy by the logits: softmax minus one-hot labels, shape (m, C)."""
    return f.softmax(1) - torch.nn.functional.one_hot(y, f.shape[1])


def changes(g, v):
    """Minus the changes of the outputs of x_j by a step on x_i, per unit rate; shape (i, j, C)."""
    return torch.einsum("jcp,iep,ie->ijc", g, g, v)


def relative_similarity(moved):
    lengths = moved.norm(dim=2)
    return lengths / lengths.diagonal()[:, None]


def kernelized_similarity(moved, v):
    return torch.einsum("ijc,ic->ij", moved, v) / v.square().sum(1)[:, None]


def relative_ratio(K, y, self_pairs=False):
    same, different = effects(K / (K.diagonal()[:, None] * K.diagonal()).sqrt(), y, self_pairs)
    return same / (same + different)


def rectangular_relative_ratio(x):
    """Over pairs of an even sample and an odd one."""
    K, y = x.kernel / (x.kernel.diagonal()[:, None] * x.kernel.diagonal()).sqrt(), x.labels
    same = (y[:, None] == y)[::2, 1::2]
    means = K[::2, 1::2][same].mean(), K[::2, 1::2][~same].mean()
    return means[0] / sum(means)


def effects(S, y, self_pairs=False):
    """Means over ordered pairs of the same class, and of different classes."""
    same = y[:, None] == y
    apart = ~torch.eye(len(y), dtype=torch.bool)
    return S[same & (apart | self_pairs)].mean(), S[~same].mean()
