"""The decisions of a linear classifier and of the nearest class centre."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_nc.functional.powers_of_two import scale_of


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
    """The class ``argmin_k ||h - mu_k||`` of each sample, shape ``(N,)``."""
    origin = means.mean(0)  # a large common offset would cost digits by cancellation
    M = means - origin
    # ||h - m||^2 - ||h||^2, which is smallest for the same class as the distance
    square_norms = M.square().sum(1)
    nearest = [
        (square_norms - 2 * (h - origin) @ M.mT).argmin(1) for h in _in_float64(features, len(M))
    ]
    return torch.cat(nearest)


def _in_float64(features: Tensor, num_classes: int) -> Iterator[Tensor]:
    """Yield a few samples at a time: neither features nor logits are ever there as a whole."""
    rows = max(1, 2**22 // max(features.shape[1], num_classes))
    return (part.detach().double() for part in torch.split(features, rows))
