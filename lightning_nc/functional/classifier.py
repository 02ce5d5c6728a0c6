"""NC3 and NC4: the classifier becomes the class means, and decides by the nearest of them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_nc.functional.checks import check_features, require_every_class
from lightning_nc.functional.class_geometry import class_sums
from lightning_nc.functional.neural_collapse import centred


def self_duality(means: Tensor, weight: Tensor) -> Tensor:
    r"""NC3: distance between classifier rows and class means, each scaled to norm 1; ideal 0.

    .. math:: \left\lVert W / \lVert W \rVert_F - M / \lVert M \rVert_F \right\rVert_F^2

    with rows ``mu_k - mu_G`` of M; the means are centred here, the classifier is taken as given.

    Args:
        means: Class means, shape ``(K, d)``.
        weight: Classifier W, shape ``(K, d)``.

    Returns:
        A float64 scalar in [0, 4]; NaN if all means coincide or W is zero.

    Raises:
        ValueError: If the shapes differ.

    Example:
        A classifier along the means scores 0, one at right angles to them 2:

        >>> means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> round(float(self_duality(means, 7 * means)), 12)
        0.0
        >>> round(float(self_duality(means, means.flip(1))), 12)
        2.0

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    if means.shape != weight.shape:
        raise ValueError(
            "Need class means and classifier rows of one shape (K, d), "
            f"got {tuple(means.shape)} and {tuple(weight.shape)}."
        )
    M, W = centred(means), weight.double()
    difference = W / torch.linalg.norm(W) - M / torch.linalg.norm(M)
    return difference.square().sum()


def nearest_class_center_mismatch(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    r"""NC4: share of samples on which classifier and nearest class centre disagree; ideal 0.

    .. math:: \operatorname{mean}_i \left[\arg\max_k (w_k \cdot h_i + b_k)
        \ne \arg\min_k \lVert h_i - \mu_k \rVert\right]

    Args:
        features: Last-layer features ``h_i``, shape ``(N, d)``.
        labels: Class indices ``0 .. K - 1``, each present, shape ``(N,)``.
        weight: Classifier W, shape ``(K, d)``.
        bias: Classifier bias b, shape ``(K,)``; zero if not given.

    Returns:
        A float64 scalar in [0, 1].

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, features are not finite, or a class has no samples.

    Example:
        Centres 0 and 4, but the classifier's threshold is at 1, so it disagrees about 1.5:

        >>> features = torch.tensor([[0.0], [4.0], [4.0], [0.0]])
        >>> labels = torch.tensor([0, 1, 1, 0])
        >>> weight, bias = torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, -1.0])
        >>> nearest_class_center_mismatch(features, labels, weight, bias)
        tensor(0., dtype=torch.float64)
        >>> features = torch.tensor([[-1.5], [4.0], [4.0], [1.5]])
        >>> nearest_class_center_mismatch(features, labels, weight, bias)
        tensor(0.2500, dtype=torch.float64)

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """
    labels = check_features(features, labels)
    if int(labels.max()) >= len(weight):
        raise ValueError(
            f"Label {int(labels.max())} has no row among {len(weight)} of the classifier."
        )
    counts, sums = class_sums(features, labels, len(weight))
    require_every_class(counts)
    decided = classifier_decisions(features, weight, bias)
    return (decided != nearest_class_centers(features, sums / counts[:, None])).double().mean()


def two_row_head(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Read a one-logit head as two classes: rows -w/2 and +w/2, biases -b/2 and +b/2.

    The logit speaks for class 1, so that row 1 is +w/2; the two differ by the logit.

    Example:
        >>> two_row_head(torch.tensor([[4.0]]), torch.tensor([2.0]))
        (tensor([[-2.],
                [ 2.]]), tensor([-1.,  1.]))
    """
    if bias is not None:
        bias = torch.cat([-bias / 2, bias / 2])
    return torch.cat([-weight / 2, weight / 2]), bias


def classifier_decisions(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The class ``argmax_k (w_k . h + b_k)`` of each sample, shape ``(N,)``."""
    W, b = weight.double(), 0 if bias is None else bias.double()
    return torch.cat([(h @ W.mT + b).argmax(1) for h in _in_float64(features)])


def nearest_class_centers(features: Tensor, means: Tensor) -> Tensor:
    """The class ``argmin_k ||h - mu_k||`` of each sample, shape ``(N,)``."""
    origin = means.mean(0)  # distances of numbers with a large common offset would cancel
    M = means - origin
    # ||h - m||^2 - ||h||^2, which has its minimum where the distance has
    square_norms = M.square().sum(1)
    nearest = [(square_norms - 2 * (h - origin) @ M.mT).argmin(1) for h in _in_float64(features)]
    return torch.cat(nearest)


def _in_float64(features: Tensor) -> Iterator[Tensor]:
    """The features a few samples at a time, so that wide layers are not copied whole."""
    rows = max(1, 2**22 // features.shape[1])
    return (part.detach().double() for part in torch.split(features, rows))
