"""Reference implementations of all quantities: slow, obvious, and without code of the package.

They use float64 NumPy with d x d matrices, straight from the formulas. Where float64 matrices lose
digits themselves, `tests.precise` does the same with 60 decimal digits, for small sizes.
"""

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map


def classes_of(labels):
    return range(int(labels.max()) + 1)


def class_means(features, labels):
    h = np.asarray(features, np.float64)
    return np.stack([h[labels == k].mean(0) for k in classes_of(labels)])


def centred_means(means):
    return means - means.mean(0)


def pseudo_inverse(matrix, rank):
    values, vectors = np.linalg.eigh(matrix)
    inverse = np.zeros_like(matrix)
    for i in np.argsort(values)[::-1][:rank]:
        if values[i] > 1e-13 * values.max():
            inverse += np.outer(vectors[:, i], vectors[:, i]) / values[i]
    return inverse


def class_covariance(features, labels, k):
    h = np.asarray(features, np.float64)[labels == k]
    covariance = np.zeros((h.shape[1], h.shape[1]))
    for sample in h:
        covariance += np.outer(sample - h.mean(0), sample - h.mean(0)) / len(h)
    return covariance


def within_covariance(features, labels):
    shares = [(labels == k).mean() for k in classes_of(labels)]
    return sum(share * class_covariance(features, labels, k) for k, share in enumerate(shares))


def between_inverse(means, weights):
    centre = sum(w * m for w, m in zip(weights, means, strict=True))
    between = sum(w * np.outer(m - centre, m - centre) for w, m in zip(weights, means, strict=True))
    return pseudo_inverse(between, min(len(means) - 1, means.shape[1]))


def separation_fuzziness(features, labels):
    shares = [(labels == k).mean() for k in classes_of(labels)]
    inverse = between_inverse(class_means(features, labels), shares)
    return np.trace(within_covariance(features, labels) @ inverse)


def class_separation_fuzziness(features, labels):
    shares = [(labels == k).mean() for k in classes_of(labels)]
    inverse = between_inverse(class_means(features, labels), shares)
    return np.array(
        [np.trace(class_covariance(features, labels, k) @ inverse) for k in classes_of(labels)]
    )


def separation_law(fuzziness):
    t, y = np.arange(len(fuzziness)), np.log(fuzziness)
    slope, intercept = np.polyfit(t, y, 1)
    rho = np.exp(slope)
    return rho, intercept, np.corrcoef(t, y)[0, 1], np.log(2) / np.log(1 / rho)


def variability_collapse(features, labels):
    means = class_means(features, labels)
    inverse = between_inverse(means, np.full(len(means), 1 / len(means)))
    return np.trace(within_covariance(features, labels) @ inverse) / len(means)


def equinorm(vectors):
    norms = [np.linalg.norm(v) for v in vectors]
    return np.std(norms, ddof=1) / np.mean(norms)


def pair_cosines(vectors):
    return np.array(
        [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(vectors, 2)]
    )


def equiangularity(vectors):
    return np.std(pair_cosines(vectors))


def maximal_angle(vectors):
    return np.mean([abs(c + 1 / (len(vectors) - 1)) for c in pair_cosines(vectors)])


def hyperspherical_uniformity(vectors):
    units = [v / np.linalg.norm(v) for v in vectors]
    return np.std([np.log(np.linalg.norm(u - v)) for u, v in combinations(units, 2)])


def uniform_duality(means, weight):
    pairs = zip(centred_means(means), weight, strict=True)
    return np.std([m @ w / np.linalg.norm(m) / np.linalg.norm(w) for m, w in pairs])


def simplex_etf_error(means):
    K = len(means)
    G = centred_means(means) @ centred_means(means).T
    simplex = (np.eye(K) - np.ones((K, K)) / K) / np.sqrt(K - 1)
    return np.linalg.norm(G / np.linalg.norm(G) - simplex)


def self_duality(means, weight):
    M = centred_means(means)
    return np.sum((weight / np.linalg.norm(weight) - M / np.linalg.norm(M)) ** 2)


def decisions(features, weight, bias):
    H = np.asarray(features, np.float64)
    return [np.argmax([w @ h + b for w, b in zip(weight, bias, strict=True)]) for h in H]


def nearest_class_center_mismatch(features, labels, weight, bias):
    return decided_mismatch(features, labels, decisions(features, weight, bias))


def decided_mismatch(features, labels, decided):
    """NC4 of a layer, given the class that the network decides for."""
    means, H = class_means(features, labels), np.asarray(features, np.float64)
    nearest = [np.argmin([np.linalg.norm(h - m) for m in means]) for h in H]
    return np.mean(np.array(nearest) != np.array(decided))


def class_distance_normalized_variance(features, labels):
    means = class_means(features, labels)
    v = [np.trace(class_covariance(features, labels, k)) for k in classes_of(labels)]
    return np.mean(
        [
            (v[i] + v[j]) / (2 * np.sum((means[i] - means[j]) ** 2))
            for i, j in combinations(range(len(means)), 2)
        ]
    )


def simplex_symmetry(values, weight):
    def spread(x):
        return np.std(x) / abs(np.mean(x))

    y, K = values, len(values)
    distances = [np.linalg.norm(a - b) for a, b in combinations(y, 2)]
    angles = [
        (y[i] - y[k]) @ (y[k] - y[j])
        for i, j in combinations(range(K), 2)
        for k in range(K)
        if k not in (i, j)
    ]
    centre = np.linalg.norm(y.mean(0)) / np.sqrt(np.mean([v @ v for v in y]))
    span = np.linalg.svd(centred_means(y))[2][: min(K - 1, y.shape[1])]
    singular_values = np.linalg.svd(weight @ span.T, compute_uv=False)
    cosines = [
        a @ m / np.linalg.norm(a) / np.linalg.norm(m)
        for a, m in zip(weight, centred_means(y), strict=True)
    ]
    return spread(distances), spread(angles), centre, spread(singular_values), 1 - np.mean(cosines)


def group_cosine(vectors, members, others=None):
    """Mean cosine over pairs of members, or over pairs of a member and one of the others."""
    total, pairs = 0.0, 0
    for i in members:
        for j in members if others is None else others:
            if others is None and j <= i:
                continue
            a, b = vectors[i], vectors[j]
            total += sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5)
            pairs += 1
    return total / pairs if pairs else np.nan


def classifier_energy(weight):
    return sum(sum(float(w) ** 2 for w in row) for row in weight) / len(weight)


def feature_energy(features, labels, centre=0.0):
    """(1/K) sum over classes of the mean squared distance of their samples from `centre`."""
    energy, K = 0.0, len(classes_of(labels))
    for h, y in zip(np.asarray(features, np.float64), labels, strict=True):
        energy += sum((h - centre) ** 2) / (labels == y).sum() / K
    return energy


def imbalance_ratio(counts, minority):
    n_A = [n for n, rare in zip(counts, minority, strict=True) if not rare]
    n_B = [n for n, rare in zip(counts, minority, strict=True) if rare]
    return (sum(n_A) / len(n_A)) / (sum(n_B) / len(n_B))


def minority_classes(counts):
    """Whether a class is in the minority, by the rule on ratios of successive counts, exactly."""
    K, ordered, most = len(counts), sorted(counts), max(counts)
    border = ordered[min(K, max(2, K // 3)) - 1]
    steps = [1 if n == m else np.inf if m == 0 else Fraction(n, m) for m, n in pairwise(ordered)]
    for below, step in enumerate(steps, start=1):
        others = steps[: below - 1] + steps[below:]
        if below >= 2 and step >= 1.5 and all(step >= other**2 for other in others):
            border = ordered[below - 1]
    return [n <= border and 3 * n <= 2 * most for n in counts]


def sample_gradients(model, inputs, outputs=None, names=None):
    """d f_c(x_i) / dw, shape (m, C, P), by one backward pass per sample and output."""
    chosen = [
        p for n, p in model.named_parameters() if (p.requires_grad if names is None else n in names)
    ]
    m, gradients = len(tree_leaves(inputs)[0]), []
    for i in range(m):
        one = tree_map(lambda x, i=i: x[i : i + 1] if len(x) == m else x, inputs)
        if isinstance(one, dict):
            f = model(**one)
        else:
            f = model(*one) if isinstance(one, tuple) else model(one)
        for number in (outputs(f) if outputs else f).flatten():
            found = torch.autograd.grad(number, chosen, retain_graph=True, materialize_grads=True)
            flat = [g.cpu().to_dense().double().flatten().numpy(force=True) for g in found]
            gradients.append(np.concatenate(flat))
    return np.stack(gradients).reshape(m, -1, len(gradients[0]))


def tangent_kernel(gradients):
    """Sum over outputs c of < d f_c(a), d f_c(b) >, from gradients of shape (m, C, P)."""
    m, C, _ = gradients.shape
    K = np.zeros((m, m))
    for a in range(m):
        for b in range(m):
            K[a, b] = sum(gradients[a, c] @ gradients[b, c] for c in range(C))
    return K


def changes_by_step(gradients, loss_gradients):
    """Minus the changes of the outputs of x_j by a step on x_i, per unit rate; shape (i, j, C)."""
    steps = [g.T @ v for g, v in zip(gradients, loss_gradients, strict=True)]
    return np.array([[g @ step for g in gradients] for step in steps])


def relative_similarity(changes):
    moves = [[np.linalg.norm(change) for change in row] for row in changes]
    return np.array([[move / row[i] for move in row] for i, row in enumerate(moves)])


def kernelized_similarity(changes, loss_gradients):
    return np.array(
        [[v @ c / (v @ v) for c in row] for row, v in zip(changes, loss_gradients, strict=True)]
    )


def relative_ratio(K, labels, self_pairs=False):
    same, different = [], []
    for a in range(len(K)):
        for b in range(len(K)):
            cosine = K[a, b] / np.sqrt(K[a, a] * K[b, b])
            if labels[a] != labels[b]:
                different.append(cosine)
            elif a != b or self_pairs:
                same.append(cosine)
    return np.mean(same) / (np.mean(same) + np.mean(different))


def collapse_values(features, labels, weight, bias):
    """All of neural collapse, by the names under which it is logged."""
    means = class_means(features, labels)
    centred = centred_means(means)
    return {
        "nc1": variability_collapse(features, labels),
        "nc2_equinorm_means": equinorm(centred),
        "nc2_equinorm_weights": equinorm(weight),
        "nc2_equiangularity_means": equiangularity(centred),
        "nc2_equiangularity_weights": equiangularity(weight),
        "nc2_maximal_angle_means": maximal_angle(centred),
        "nc2_maximal_angle_weights": maximal_angle(weight),
        "nc2_etf_error": simplex_etf_error(means),
        "nc3": self_duality(means, weight),
        "nc4": nearest_class_center_mismatch(features, labels, weight, bias),
        "gnc2": hyperspherical_uniformity(centred),
        "unc3": uniform_duality(means, weight),
        "cdnv": class_distance_normalized_variance(features, labels),
        "accuracy": np.mean((features @ weight.T + bias).argmax(1) == labels),
    }


def layer_collapse_values(features, labels, decided):
    """Neural collapse of any layer, by the names under which it is logged."""
    return {
        "nc1": variability_collapse(features, labels),
        "cdnv": class_distance_normalized_variance(features, labels),
        "nc4": decided_mismatch(features, labels, decided),
    }


def separation_values(fuzziness):
    """The law of equi-separation, by the names under which it is logged."""
    rho, _, pearson_r, half_life = separation_law(fuzziness)
    total = fuzziness[-1] / fuzziness[0]
    return {"rho": rho, "pearson_r": pearson_r, "half_life": half_life, "total": total}


def minority_values(features, labels, weight, bias, training_counts, minority):
    """All of minority collapse but predictions, by the names under which it is logged."""
    K, means = len(weight), class_means(features, labels)
    B = [k for k in range(K) if k in minority]
    A = [k for k in range(K) if k not in minority]
    norms = [np.linalg.norm(w) for w in weight]
    right = (features @ weight.T + bias).argmax(1) == labels
    return {
        "cos_weights": group_cosine(weight, B),
        "cos_means": group_cosine(centred_means(means), B),
        "cos_majority_weights": group_cosine(weight, A),
        "norm_ratio": np.mean([norms[k] for k in B]) / np.mean([norms[k] for k in A]),
        "imbalance_ratio": imbalance_ratio(training_counts, [k in B for k in range(K)]),
        "energy_weights": classifier_energy(weight),
        "energy_features": feature_energy(features, labels),
        "energy_features_centered": feature_energy(features, labels, means.mean(0)),
        "minority_accuracy": np.mean([right[labels == k].mean() for k in B]),
    }


def normalized(features, normalization):
    h = np.asarray(features, np.float64)
    if normalization == "layer_norm":
        h = h - h.mean(1, keepdims=True)
    return h if normalization == "none" else h / np.sqrt((h**2).mean(1, keepdims=True))


def prediction_residual(features, tokens, normalization="layer_norm"):
    h, y = normalized(features, normalization), np.asarray(tokens, np.float64)
    h, y = h - h.mean(0), y - y.mean()
    residuals = y - h @ np.linalg.lstsq(h, y, rcond=1e-12)[0]
    return (residuals**2).sum() / (y**2).sum()
