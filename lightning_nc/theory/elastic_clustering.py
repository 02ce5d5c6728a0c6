"""Clustering by local elasticity: a step on a sample most moves predictions for similar samples."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


class ElasticSimilarities(NamedTuple):
    """How far a step on each primary sample moves the predictions for the others, symmetrised.

    Attributes:
        relative: S_rel, dimensionless, 1 on the diagonal, shape ``(n, n)``.
        kernelized: S_ker, in squared units of the output's gradient, shape ``(n, n)``.
    """

    relative: Tensor
    kernelized: Tensor


def elastic_similarities(
    model: nn.Module,
    primary: Tensor,
    auxiliary: Tensor,
    loss: Loss,
    rate: float,
    seed: int = 0,
    auxiliary_label: float = -1.0,
) -> ElasticSimilarities:
    r"""How far an SGD step on one sample moves the prediction for another; large if similar.

    One epoch of SGD runs without replacement over primary samples, labelled 1, and auxiliary
    samples. The step ``w -> w+`` on the primary sample x_i determines row i of

    .. math::
        S_{rel}(x_i, x') = \frac{|f(x', w^+) - f(x', w)|}{|f(x_i, w^+) - f(x_i, w)|}, \qquad
        S_{ker}(x_i, x') = \frac{f(x', w^+) - f(x', w)}{-\gamma \, \partial L / \partial f(x_i)}

    and ``(S + S^T) / 2`` is returned for each S. As the rate gamma tends to 0, S_ker tends to the
    tangent kernel ``<df(x_i)/dw, df(x')/dw>``.

    The epoch runs on a copy in float64 and in evaluation mode; the model is not modified.

    Args:
        model: A network f with one output, shape ``(B,)`` or ``(B, 1)``.
        primary: The samples to cluster, first dimension n.
        auxiliary: Samples to contrast them with, first dimension m, possibly 0.
        loss: ``L(f, y)`` of two scalars, such as ``torch.nn.functional.mse_loss``.
        rate: Learning rate gamma, positive. Too large a rate leads to infinite or NaN similarities.
        seed: Seed of the order of the samples.
        auxiliary_label: Label y of auxiliary samples: -1, or 0 for the binary cross-entropy.

    Returns:
        `ElasticSimilarities`, float64. Row and column i of S_rel are NaN if the step on x_i does
        not change f(x_i) in float64, those of S_ker if the loss gradient at x_i is zero.

    Raises:
        ValueError: If the rate is not positive, no parameter requires gradients, there are no
            primary samples, or the network has more than one output.

    Example:
        For f(x) = w x, any step moves f(x') by x' / x times as much as f(x), and S_ker = x x':

        >>> model = nn.Linear(1, 1, bias=False)
        >>> loss = nn.functional.mse_loss
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> relative, kernelized = elastic_similarities(model, x, torch.empty(0, 1), loss, 0.01)
        >>> relative  # off the diagonal (2/1 + 1/2) / 2
        tensor([[1.0000, 1.2500],
                [1.2500, 1.0000]], dtype=torch.float64)
        >>> kernelized.round(decimals=6)
        tensor([[1., 2.],
                [2., 4.]], dtype=torch.float64)

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR, Algorithm 1.
    """
    if not rate > 0:
        raise ValueError(f"The learning rate must be above 0, got {rate}.")
    n, m = len(primary), len(auxiliary)
    if n == 0:
        raise ValueError("There is nothing to compare: provide at least one primary sample.")
    network = copy.deepcopy(model).double().eval()
    if not any(w.requires_grad for w in network.parameters()):
        raise ValueError("All parameters are frozen, so no step moves the network: unfreeze some.")
    samples = torch.cat([primary, auxiliary]).double()
    labels = torch.ones(n + m, dtype=torch.float64, device=samples.device)
    labels[n:] = auxiliary_label
    relative = torch.empty(n, n, dtype=torch.float64, device=samples.device)
    kernelized = torch.empty_like(relative)
    with torch.no_grad():
        for i in torch.randperm(n + m, generator=torch.Generator().manual_seed(seed)).tolist():
            if i >= n:
                _step(network, samples[i : i + 1], labels[i], loss, rate)
                continue
            before = _outputs(network, samples[:n])
            slope = _step(network, samples[i : i + 1], labels[i], loss, rate)
            change = _outputs(network, samples[:n]) - before
            own = change[i].abs()
            relative[i] = change.abs() / torch.where(own > 0, own, torch.nan)
            kernelized[i] = change / (-rate * slope)
    return ElasticSimilarities((relative + relative.mT) / 2, (kernelized + kernelized.mT) / 2)


def similarity_clusters(similarity: Tensor, num_clusters: int, seed: int = 0) -> Tensor:
    r"""Cluster samples by k-means on their rows of similarities.

    .. math:: \min_{c} \sum_i \lVert S_{i \cdot} - m_{c_i} \rVert^2, \qquad
        m_k = \text{the mean row of cluster } k

    The best of ten starts is returned. Requires scikit-learn.

    Args:
        similarity: S, symmetric, shape ``(n, n)``; the relative similarity in the paper.
        num_clusters: Number of clusters, between 1 and n.
        seed: Seed of the starts.

    Returns:
        The cluster of each sample, ``0 .. num_clusters - 1`` in no particular order, int64, shape
        ``(n,)``.

    Raises:
        ValueError: If the matrix is not square or not finite, or has fewer rows than clusters.

    Example:
        >>> S = torch.block_diag(torch.ones(2, 2), torch.ones(3, 3))
        >>> clusters = similarity_clusters(S, 2)
        >>> clusters == clusters[0]
        tensor([ True,  True, False, False, False])

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR, Algorithm 1.
    """
    _check_similarity(similarity, num_clusters)
    return _k_means(similarity.double(), num_clusters, seed)


def kernel_clusters(kernel: Tensor, num_clusters: int, seed: int = 0) -> Tensor:
    r"""Cluster samples by kernel k-means, that is, k-means in the feature space of the kernel.

    .. math:: \min_{c} \sum_i \lVert \phi_i - m_{c_i} \rVert^2, \qquad
        \langle \phi_i, \phi_j \rangle = K_{ij}

    Distances to cluster means depend only on inner products, so any points with inner products K
    lead to the same clusters. The rows of ``U sqrt(Lambda)``, where ``K = U Lambda U^T``, are such
    points: k-means on them is kernel k-means. For a matrix with negative eigenvalues there are no
    such points; these eigenvalues are set to 0, which yields the nearest positive semidefinite
    matrix.

    The best of ten starts is returned. Requires scikit-learn.

    Args:
        kernel: K, shape ``(n, n)``, of which the symmetric part is used; the kernelised similarity
            in the paper.
        num_clusters: Number of clusters, between 1 and n.
        seed: Seed of the starts.

    Returns:
        The cluster of each sample, ``0 .. num_clusters - 1`` in no particular order, int64, shape
        ``(n,)``.

    Raises:
        ValueError: If the matrix is not square or not finite, or has fewer rows than clusters.

    Example:
        Inner products of the points -3, -2, 2 and 3 on a line:

        >>> x = torch.tensor([-3.0, -2.0, 2.0, 3.0])
        >>> clusters = kernel_clusters(torch.outer(x, x), 2)
        >>> clusters == clusters[0]
        tensor([ True,  True, False, False])

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR, Algorithm 1.
    """
    _check_similarity(kernel, num_clusters)
    K = kernel.double()
    Lambda, U = torch.linalg.eigh((K + K.mT) / 2)
    return _k_means(U * Lambda.clamp(min=0).sqrt(), num_clusters, seed)


def clustering_accuracy(found: Tensor, labels: Tensor) -> Tensor:
    r"""The share of samples whose cluster is matched to their class; 1 if clusters are the classes.

    .. math:: \max_\pi \frac1n \sum_i 1[\pi(c_i) = y_i]

    The maximum is over all one-to-one matchings pi of clusters to classes. Requires scikit-learn.

    Args:
        found: Cluster c_i of each sample, integers, shape ``(n,)``.
        labels: Class y_i of each sample, integers, shape ``(n,)``.

    Returns:
        A float64 scalar in (0, 1], dimensionless; at least 1/K for K clusters of K classes.

    Raises:
        ValueError: If the shapes differ, or there are no samples.

    Example:
        >>> clustering_accuracy(torch.tensor([1, 1, 0, 0]), torch.tensor([5, 5, 8, 5]))
        tensor(0.7500, dtype=torch.float64)

    Source:
        He & Su (2020), "The local elasticity of neural networks", ICLR.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    if found.ndim != 1 or found.shape != labels.shape or len(found) == 0:
        raise ValueError(
            "Need a cluster and a label for each of n >= 1 samples, both of shape (n,), "
            f"got {tuple(found.shape)} and {tuple(labels.shape)}."
        )
    together = contingency_matrix(labels.cpu().numpy(), found.cpu().numpy())  # (classes, clusters)
    matched = together[linear_sum_assignment(together, maximize=True)].sum()
    return torch.tensor(matched / len(found), dtype=torch.float64)


def _outputs(network: nn.Module, x: Tensor) -> Tensor:
    """``f(x, w)``, shape ``(B,)``."""
    f: Tensor = network(x)
    if f.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"The network must have one output, of shape ({len(x)},) or ({len(x)}, 1), to tell "
            f"primary from auxiliary samples; got {tuple(f.shape)}."
        )
    return f.reshape(len(x))


def _step(network: nn.Module, x: Tensor, y: Tensor, loss: Loss, rate: float) -> Tensor:
    """Take a gradient step on the loss on x and return ``dL/df(x)``."""
    weights = [w for w in network.parameters() if w.requires_grad]
    with torch.enable_grad():
        f = _outputs(network, x)[0]
        slope, *gradients = torch.autograd.grad(loss(f, y), [f, *weights], materialize_grads=True)
    for w, gradient in zip(weights, gradients, strict=True):
        w.sub_(rate * gradient)
    return slope


def _check_similarity(similarity: Tensor, num_clusters: int) -> None:
    """Raise unless the matrix is square and finite and has enough rows for the clusters."""
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"Similarities must be a square matrix, got {tuple(similarity.shape)}.")
    if not 1 <= num_clusters <= len(similarity):
        raise ValueError(f"{len(similarity)} samples cannot form {num_clusters} clusters.")
    if not bool(similarity.isfinite().all()):
        # a sample whose step moves nothing has NaN in its row and column, and so on the diagonal
        still = (~similarity.diagonal().isfinite()).nonzero().flatten().tolist()
        raise ValueError(
            f"Similarities must be finite, but those of samples {still} with themselves are not: a "
            "step on such a sample moves nothing or diverges. Leave it out, or change the rate."
        )


def _k_means(points: Tensor, num_clusters: int, seed: int) -> Tensor:
    """The clusters of the best of ten runs of k-means, shape ``(n,)``."""
    from sklearn.cluster import KMeans

    k_means = KMeans(num_clusters, n_init=10, random_state=seed)
    return torch.as_tensor(k_means.fit_predict(points.cpu().numpy()), device=points.device).long()
