"""The decisions of a linear classifier and of the nearest class centre."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_nc.functional.class_sums import column_blocks
from lightning_nc.functional.powers_of_two import scale_of

_AT_ONCE = 2**22  # numbers, one per sample and class, that are held at a time


def two_row_head(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Read a one-logit classifier as two rows, -w/2 and +w/2, with biases -b/2 and +b/2.

    The logit is that of class 1, so row 1 is +w/2. The two resulting logits differ by the original
    one.

    Args:
        weight: Weight w, shape ``(1, d)``.
        bias: Bias b, shape ``(1,)``, if there is one.

    Returns:
        Classifier rows, shape ``(2, d)``, and biases, shape ``(2,)`` or None.

    Example:
        >>> two_row_head(torch.tensor([[4.0]]), torch.tensor([2.0]))
        (tensor([[-2.],
                [ 2.]]), tensor([-1.,  1.]))
    """
    if bias is not None:
        bias = torch.cat([-bias / 2, bias / 2])
    return torch.cat([-weight / 2, weight / 2]), bias


def classifier_decisions(
    features: Tensor, weight: Tensor, bias: Tensor | None, scale: float = 1.0
) -> Tensor:
    """The class ``argmax_k (w_k . h + b_k)`` of each sample, shape ``(N,)``.

    Args:
        features: Features h in units of ``scale``, shape ``(N, d)``.
        weight: Classifier rows w_k, shape ``(K, d)``.
        bias: Classifier bias b, shape ``(K,)``; None without one.
        scale: The unit of the features, a power of two.
    """
    unit = scale_of(weight)  # a common factor of all logits decides nothing
    W, b = weight.double() / unit, None if bias is None else bias.double() / unit / scale
    parts = _in_float64(features, len(W))
    return torch.cat([classifier_logits(h, W, b).argmax(1) for h in parts])


def classifier_logits(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``w_k . h + b_k`` of each sample and row, of float64 numbers, shape ``(N, K)``."""
    return features @ weight.mT + (0 if bias is None else bias)


def nearest_class_centers(features: Tensor, means: Tensor) -> Tensor:
    """The class ``argmin_k ||h - mu_k||`` of each sample, shape ``(N,)``.

    Args:
        features: ``h_i``, any floating dtype, shape ``(N, d)``.
        means: Class means, float64, shape ``(K, d)``.
    """
    origin = means.mean(0)  # a large common offset would cost digits by cancellation
    nearest = []
    for part in torch.split(features.detach(), max(1, _AT_ONCE // len(means))):
        # ||h - m||^2 - ||h||^2, which is smallest for the same class as the distance
        distances = means.new_zeros(len(part), len(means))
        for columns in column_blocks(part):
            M = means[:, columns] - origin[columns]
            h = part[:, columns].double() - origin[columns]
            distances += M.square().sum(1)
            distances.addmm_(h, M.mT, alpha=-2)
        nearest.append(distances.argmin(1))
    return torch.cat(nearest)


def _in_float64(features: Tensor, num_classes: int) -> Iterator[Tensor]:
    """Yield a few samples at a time: neither features nor logits are ever there as a whole."""
    rows = max(1, _AT_ONCE // max(features.shape[1], num_classes))
    return (part.detach().double() for part in torch.split(features, rows))
